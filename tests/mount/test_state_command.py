"""`bundlefs state`, and what a mount says of a state file that it cannot or must not use."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundlefs import open_bundle
from bundlefs.keys.rsa import Secret
from bundlefs.state import file as statefile
from tests.mount.commands import attempt, refusal
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, bundlefs, mounted
from tests.support.tools import run

MIB = images.MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 12 * MIB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state-home" / "bundlefs"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    made = tmp_path / "mnt"
    made.mkdir()
    return made


@pytest.fixture
def state(image: Path, mountpoint: Path, folder: Path) -> Path:
    """The state file of a complete bundle."""
    with mounted(image, mountpoint, "--level", "1") as mount:
        mount.manifest().read_bytes()
    [path] = folder.glob("*.state")
    return path


def listed() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(bundlefs("state", "list", "--json"))
    return rows


def secret_of(path: Path) -> Secret:
    contents = statefile.read(path)
    assert contents
    return contents.secret


# For people


def test_nothing_is_there(folder: Path, image: Path) -> None:
    assert bundlefs("state", "list") == f"nothing in {folder}\n"
    assert listed() == []
    for action in ("show", "forget"):
        ending = attempt("state", action, image)
        assert (ending.code, ending.out) == (1, "")
        assert ending.err == (
            f"bundlefs: no state of {image} in {folder}; see: bundlefs state list\n"
        )
    assert not folder.exists(), "to look makes nothing"


def test_an_image_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "no state of" in attempt("state", "show", tmp_path / "loop").err


def test_list(image: Path, tmp_path: Path, mountpoint: Path, folder: Path) -> None:
    other = images.text_image(tmp_path / "other", 3 * MIB)
    with mounted(image, mountpoint, "--level", "1") as mount:
        assert len(mount.parts()) == 2
        with mounted(other, tmp_path / "second", "--prefix", "x") as second:
            rows = {row["image"]: row for row in listed()}
            assert rows.keys() == {str(image), str(other)}
            for at, row in ((mount, rows[str(image)]), (second, rows[str(other)])):
                assert row["mounted"] is True
                assert row["holder"] == f"process {at.pid}, mounted on {at.path}"
        assert rows[str(other)]["prefix"] == "x"
        assert [rows[str(other)][name] for name in ("made", "parts", "complete")] == [0, 0, False]
        assert "made     as far as 0 bytes, 0 parts" in bundlefs("state", "list")
    rows = {row["image"]: row for row in listed()}
    sealed = rows[str(image)]["made"]
    assert 12 * MIB < sealed < 12 * MIB + 4096
    assert [rows[str(image)][name] for name in ("parts", "complete")] == [2, True]
    for row in rows.values():
        path = Path(row["file"])
        assert path.parent == folder
        assert row["size"] == path.stat().st_size
        assert (row["mounted"], row["holder"]) == (False, None)
        assert abs(row["since"] - path.stat().st_mtime) < 3600


def test_list_for_a_person(state: Path) -> None:
    """The text has the same, with sizes and times as people read them."""
    [row] = listed()
    size = row["size"]
    shown = dict(line.split(None, 1) for line in bundlefs("state", "list").splitlines()[1:])
    assert shown.pop("since")[:4].isdigit()
    assert shown == {
        "prefix": "image",
        "made": "complete, 12.0 MiB in 2 parts",
        "mounted": "no",
        "file": str(state),
        "size": f"{size} bytes" if size < 1024 else f"{size / 1024:.1f} KiB",
    }


def test_show(image: Path, state: Path) -> None:
    for what in (image, state, image.parent / "x" / ".." / "disk"):
        shown = bundlefs("state", "show", what)
        assert shown.startswith(f"{image}\n")
        for text in (
            "complete, 12.0 MiB in 2 parts",
            "manifests: image.manifest.xml (rendered: image.manifest.xml)",
            "        prefix: image\n",
            f"        image's size: {12 * MIB}\n",
            "        codec: isal-1-8, ",
        ):
            assert text in shown


def test_forget(image: Path, state: Path, mountpoint: Path) -> None:
    before = secret_of(state)
    assert bundlefs("state", "forget", image) == f"forgot {state}\n"
    assert list(state.parent.iterdir()) == []
    assert listed() == []
    with mounted(image, mountpoint):
        assert secret_of(state) != before


# Access points


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A compressed image that has more than one access point."""
    raw = images.random_image(tmp_path / "raw", 5 * MIB)
    path = tmp_path / "disk.gz"
    path.write_bytes(run(["gzip", "-1c", raw]))
    return path


def test_forget_removes_the_points_of_an_image(
    packed: Path, mountpoint: Path, folder: Path
) -> None:
    for prefix in ("image", "other"):
        with mounted(packed, mountpoint, "--prefix", prefix) as mount:
            mount.manifest(f"{prefix}.manifest.xml").read_bytes()
    [points] = folder.glob("*.points")
    first, second = sorted(folder.glob("*.state"))
    assert [row["file"] for row in listed()] == [str(path) for path in (first, second, points)]
    # The other bundle needs them.
    assert bundlefs("state", "forget", first) == f"forgot {first}\n"
    assert points.exists()
    assert bundlefs("state", "forget", packed) == f"forgot {second}\nforgot {points}\n"
    assert list(folder.iterdir()) == []


def test_forget_removes_the_points_beside_a_state(
    packed: Path, mountpoint: Path, folder: Path, tmp_path: Path
) -> None:
    state, points = tmp_path / "kept", tmp_path / "kept.points"
    with mounted(packed, mountpoint, "--state", state) as mount:
        mount.manifest().read_bytes()
    users = packed.with_name(f"{packed.name}.points")
    users.touch()
    assert attempt("state", "forget", packed).code == 1
    assert bundlefs("state", "forget", state) == f"forgot {state}\nforgot {points}\n"
    assert not points.exists()
    assert users.exists()
    assert not folder.exists()


def test_points_of_an_opened_bundle(image: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    options = ("--state", "none", "--level", "1", "--user-key", user_keys.private)
    bundlefs("bundle", *options, image, bundle)
    with open_bundle(bundle / "image.manifest.xml", user_keys.private) as disk:
        assert disk.read(8 * MIB, 1)
    [row] = listed()
    assert (row["image"], "access points" in row["made"]) == ("?", True)
    assert bundlefs("state", "show", row["file"]).startswith("?\n")
    assert bundlefs("state", "forget", row["file"]) == f"forgot {row['file']}\n"
    assert listed() == []


def test_forget_is_refused_while_it_is_mounted(image: Path, mountpoint: Path, folder: Path) -> None:
    with mounted(image, mountpoint) as mount:
        [path] = folder.glob("*.state")
        for what in (image, path):
            ending = attempt("state", "forget", what)
            assert (ending.code, ending.out) == (1, "")
            assert f"in use by process {mount.pid}, mounted on {mountpoint}; unmount" in ending.err
            assert ending.err.count("\n") == 1
        assert path.exists()
    bundlefs("state", "forget", path)


def test_forget_removes_no_other_file(image: Path, tmp_path: Path) -> None:
    for name in ("disk.state", "disk.img"):
        other = Path(shutil.copy(image, tmp_path / name))
        assert attempt("state", "forget", other).code == 1
        assert other.exists()


def test_the_modes(state: Path) -> None:
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.parent.iterdir()}
    assert files == {state.name: 0o600, f"{state.name}.lock": 0o600}


def test_damaged_ones_are_shown_and_can_be_forgotten(image: Path, state: Path) -> None:
    cut, link, other = (state.with_name(f"{name}.state") for name in ("cut", "link", "others"))
    cut.write_bytes(state.read_bytes()[:-1])
    cut.chmod(0o600)
    other.write_bytes(state.read_bytes())
    link.symlink_to("nowhere")
    rows = {Path(row["file"]).name: row for row in listed()}
    assert rows.keys() == {state.name, cut.name, link.name, other.name}
    assert rows[state.name]["image"] == str(image)
    for path, problem in ((cut, "cut short"), (link, "symbolic link"), (other, "mode 0644")):
        assert rows[path.name]["image"] == "?"
        assert problem in rows[path.name]["made"]
        assert problem in bundlefs("state", "list")
        assert problem in bundlefs("state", "show", path)
        assert bundlefs("state", "forget", path) == f"forgot {path}\n"
        assert not path.is_symlink()
        assert not path.exists()
    assert [row["file"] for row in listed()] == [str(state)]


def test_the_secret_is_shown_nowhere(
    image: Path, mountpoint: Path, tmp_path: Path, user_keys: KeyPair, folder: Path
) -> None:
    log, empty = tmp_path / "log", tmp_path / "empty"
    empty.mkdir()
    options = ("--user-key", user_keys.private, "--verbose", "--log-file", log)
    for more in ((), (), ("--level", "9"), ("--fresh",)):
        with mounted(image, mountpoint, *options, *more) as mount:
            [path] = folder.glob("*.state")
            secret = secret_of(path)
            said = mount.manifest().read_text() + json.dumps(mount.status())
            for words in (["list"], ["list", "--json"], ["show", image]):
                said += bundlefs("state", *words)
            lock = path.with_name(f"{path.name}.lock")
            said += (
                lock.read_text() + run(["ps", "-ww", "-o", "args=", "-p", str(mount.pid)]).decode()
            )
            said += refusal("mount", *options, image, empty, code=1)
        said += log.read_text()
        assert str(image) in said
        for value in (secret.key, secret.iv):
            assert value.hex() not in said
            assert repr(value)[2:-1] not in said


# What a mount says


def test_a_second_mount_is_told_of_the_first(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    link = tmp_path / "link"
    link.symlink_to(image)
    with mounted(image, mountpoint) as mount:
        for words in ([image], ["--fresh", image], ["--level", "9", image], [link]):
            line = refusal("mount", *words, second, code=1)
            assert f"is in use by process {mount.pid}, mounted on {mountpoint}; unmount" in line
            assert "give this one another --prefix or --state" in line
        with mounted(image, second, "--state", "none") as other:
            assert len(other.parts()) == 2
        assert len(mount.parts()) == 2


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def of_the_future(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"state 1\n", b"state 2\n", 1))


def anothers(path: Path) -> None:
    os.chown(path, 12345, 12345)


def opened_up(path: Path) -> None:
    path.chmod(0o644)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (truncated, "it is damaged or cut short"),
    (emptied, "it is not a state file of bundlefs, or is damaged"),
    (garbled, "it is damaged or cut short"),
    (of_the_future, "it is of version 2; this bundlefs knows version 1"),
    (anothers, "it belongs to user 12345, not to you (0)"),
    (opened_up, "others may open it (mode 0644)"),
    (a_folder, "it is not a regular file; name another with --state"),
    (a_link, "it is a symbolic link; name another with --state"),
    (a_fifo, "it is not a regular file; name another with --state"),
]


@pytest.mark.parametrize(("spoil", "text"), SPOILT, ids=[spoil.__name__ for spoil, _ in SPOILT])
def test_a_state_that_cannot_be_trusted(
    image: Path, state: Path, mountpoint: Path, spoil: Callable[[Path], None], text: str
) -> None:
    before = secret_of(state)
    spoil(state)
    line = refusal("mount", image, mountpoint, code=1)
    assert line.startswith(f"bundlefs: state file {state}: {text}")
    assert refusal("mount", image, mountpoint, code=1) == line
    if "--fresh starts a new bundle with a new key" in line:
        with mounted(image, mountpoint, "--fresh") as mount:
            assert mount.status()["phase"] == "idle"
            assert secret_of(state) != before
    else:
        assert "--state" in line
        with mounted(image, mountpoint, "--state", state.with_name("another")):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "bundlefs-test", where])
    try:
        yield where
    finally:
        run(["umount", "-l", where])


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    ballast.write_bytes(bytes(free.f_bfree * free.f_bsize))
    assert os.statvfs(disk).f_bfree == 0
    return ballast


def test_a_full_disk_at_mount(image: Path, mountpoint: Path, small_disk: Path) -> None:
    fill(small_disk)
    path = small_disk / "state"
    line = refusal("mount", "--state", path, image, mountpoint, code=1)
    assert line.startswith(f"bundlefs: cannot write the state file {path}: No space left on device")
    assert "name another place with --state" in line
    assert not path.exists()


def everything(mount: Mount) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in mount.path.iterdir()}


def test_a_full_disk_while_mounted(
    image: Path, mountpoint: Path, small_disk: Path, tmp_path: Path
) -> None:
    path, log = small_disk / "state", tmp_path / "log"
    options = ("--level", "1", "--state", path)
    with mounted(image, mountpoint, *options, "--log-file", log) as mount:
        ballast = fill(small_disk)
        shown = everything(mount)
        warnings = [line for line in log.read_text().splitlines() if " WARNING: " in line]
        [warning] = warnings
        assert f"cannot save to {path}: No space left on device; after a crash, what" in warning
        assert mount.status()["phase"] == "complete"
        ballast.unlink()
    with mounted(image, mountpoint, *options) as mount:
        assert everything(mount) == shown
        assert mount.status()["phase"] == "complete"
