"""What takes long before a mount answers, or behind it, is shown: bars, lines and the status."""

import lzma
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import IMPATIENT, INTERRUPT, attempt, eventually, terminal
from tests.mount.hanging_disk import Storage, hanging_disk
from tests.support import images
from tests.support.mounts import BUNDLEFS, bundlefs, detach, mounted
from tests.support.tools import tool

SIZE = 3 * images.MIB


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    image = images.random_image(folder / "image", SIZE)
    (path := folder / "image.xz").write_bytes(lzma.compress(image.read_bytes(), preset=0))
    return path


@pytest.fixture(scope="module")
def storage(packed: Path) -> Iterator[Storage]:
    with hanging_disk(packed.with_name("hangs"), packed) as made:
        yield made


def test_a_bar_while_an_image_is_unpacked(storage: Storage, packed: Path, mountpoint: Path) -> None:
    words = ("mount", "-f", "--state", "none", storage.folder / "disk.xz", mountpoint)
    with terminal(*words) as shell:
        with storage.held(packed.stat().st_size):
            shell.wait_for("unpacking disk.xz: ")
            shell.wait_for("%|")
        shell.wait_for("mounted on")
        shell.type(INTERRUPT)
        assert shell.finish() == 0
    assert "unpacking, " not in shell.shown


def test_lines_while_an_image_is_unpacked(packed: Path, mountpoint: Path) -> None:
    """For who waits, without a terminal, for a mount that goes to the background."""
    words = ("mount", "--state", "none", packed, mountpoint)
    for program, options, told in ((IMPATIENT, (), 1), (IMPATIENT, ("-q",), 0), (BUNDLEFS, (), 0)):
        ending = attempt(*words, *options, program=program)
        try:
            assert (ending.code, ending.out) == (0, "")
            lines = [line for line in ending.err.splitlines() if ": unpacking, " in line]
            assert len(lines) == told
            assert all(f"{packed}: unpacking, " in line and "MiB/s" in line for line in lines)
            bundlefs("umount", mountpoint)
        finally:
            detach(mountpoint)


def test_the_status_of_an_image_that_is_unpacked(
    storage: Storage, packed: Path, mountpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "one").symlink_to(storage.folder / "another.xz")
    size = packed.stat().st_size
    with mounted(folder, mountpoint, "--state", "none") as mount:
        with storage.held(size):
            listing = subprocess.Popen([tool("ls"), mountpoint / "one"], stdout=subprocess.DEVNULL)
            assert eventually(lambda: begun(mount.status()), 30)
            [image] = mount.status()["images"]
            shown = bundlefs("status", mountpoint / "one").splitlines()
        assert listing.wait(60) == 0
        assert phases(mount.status()) == ["complete"]
    assert 0 < image["pass_bytes_done"] < image["pass_bytes_total"] == size
    assert "phase     unpacking: a compressed file is gone through once" in shown
    assert shown[-1].endswith("B/s]")


def begun(status: dict[str, list[dict[str, int]]]) -> bool:
    return any(one.get("pass_bytes_done") for one in status["images"])


def phases(status: dict[str, list[dict[str, str]]]) -> list[str]:
    return [one["phase"] for one in status["images"]]
