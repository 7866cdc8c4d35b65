"""What a mount says of a state file that it cannot or must not use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.commands import refusal
from tests.mount.states import secret_of
from tests.support.folders import filled
from tests.support.mounts import Mount, mounted


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


def test_a_full_disk_at_mount(image: Path, mountpoint: Path, small_disk: Path) -> None:
    filled(small_disk)
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
        ballast = filled(small_disk)
        shown = everything(mount)
        warnings = [line for line in log.read_text().splitlines() if " WARNING: " in line]
        [warning] = warnings
        assert f"cannot save to {path}: No space left on device; after a crash, what" in warning
        assert mount.status()["phase"] == "complete"
        ballast.unlink()
    with mounted(image, mountpoint, *options) as mount:
        assert everything(mount) == shown
        assert mount.status()["phase"] == "complete"
