"""`bundlefs state`: what it tells of state files and access points, forgets, and leaves alone."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from bundlefs import open_bundle
from tests.mount.commands import attempt, refusal
from tests.mount.states import secret_of
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, mounted
from tests.support.tools import run

MIB = images.MIB


def listed() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(bundlefs("state", "list", "--json"))
    return rows


# For people


def test_nothing_is_there(state_folder: Path, image: Path) -> None:
    assert bundlefs("state", "list") == f"nothing in {state_folder}\n"
    assert listed() == []
    for action in ("show", "forget"):
        ending = attempt("state", action, image)
        assert (ending.code, ending.out) == (1, "")
        assert ending.err == (
            f"bundlefs: no state of {image} in {state_folder}; see: bundlefs state list\n"
        )
    assert not state_folder.exists(), "to look makes nothing"


def test_an_image_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "no state of" in attempt("state", "show", tmp_path / "loop").err


def test_list(image: Path, tmp_path: Path, mountpoint: Path, state_folder: Path) -> None:
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
        assert path.parent == state_folder
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
    packed: Path, mountpoint: Path, state_folder: Path
) -> None:
    for prefix in ("image", "other"):
        with mounted(packed, mountpoint, "--prefix", prefix) as mount:
            mount.manifest(f"{prefix}.manifest.xml").read_bytes()
    [points] = state_folder.glob("*.points")
    first, second = sorted(state_folder.glob("*.state"))
    assert [row["file"] for row in listed()] == [str(path) for path in (first, second, points)]
    # The other bundle needs them.
    assert bundlefs("state", "forget", first) == f"forgot {first}\n"
    assert points.exists()
    assert bundlefs("state", "forget", packed) == f"forgot {second}\nforgot {points}\n"
    assert list(state_folder.iterdir()) == []


def test_forget_removes_the_points_beside_a_state(
    packed: Path, mountpoint: Path, state_folder: Path, tmp_path: Path
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
    assert not state_folder.exists()


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


def test_forget_is_refused_while_it_is_mounted(
    image: Path, mountpoint: Path, state_folder: Path
) -> None:
    with mounted(image, mountpoint) as mount:
        [path] = state_folder.glob("*.state")
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
    image: Path, mountpoint: Path, tmp_path: Path, user_keys: KeyPair, state_folder: Path
) -> None:
    log, empty = tmp_path / "log", tmp_path / "empty"
    empty.mkdir()
    options = ("--user-key", user_keys.private, "--verbose", "--log-file", log)
    for more in ((), (), ("--level", "9"), ("--fresh",)):
        with mounted(image, mountpoint, *options, *more) as mount:
            [path] = state_folder.glob("*.state")
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
