"""An image that changes under a live mount that has all it needs in memory: noticed all the same.

What is complete and in memory needs no read of the image.
"""

import errno
import gzip
import lzma
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.commands import eventually, names
from tests.mount.live import CHANGES, Live, assert_failed, assert_stale, edit
from tests.support import images
from tests.support.mounts import mounted
from tests.support.tools import run, tool

MIB = images.MIB
KEEPING = ("--level", "1", "--state", "none")


def replace(image: Path) -> None:
    """Rename another file over it."""
    other = image.with_name("other")
    other.write_bytes(image.read_bytes()[::-1])
    other.rename(image)


def remove(image: Path) -> None:
    image.unlink()


COMPLETE_CHANGES = [*CHANGES, replace, remove]


@pytest.fixture
def complete(original: Path, tmp_path: Path) -> Iterator[Live]:
    """A mount whose parts are all in memory."""
    image = Path(shutil.copy(original, tmp_path / "disk"))
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *KEEPING, "--log-file", log) as mount:
        assert len(names(mount.path)) == 6
        yield Live(mount, log)


@pytest.mark.parametrize("change", COMPLETE_CHANGES, ids=lambda change: change.__name__)
def test_changed_when_all_parts_are_in_memory(
    change: Callable[[Path], None], complete: Live
) -> None:
    first = complete.part(0).read_bytes()
    assert len(first) == 10 * MIB
    change(complete.image)
    # Parts that were read before and are in the kernel's memory, others, the manifest.
    for path in (complete.part(0), complete.part(1), complete.mount.manifest()):
        assert_stale(path.read_bytes)
    assert_failed(complete)
    assert len(names(complete.mount.path)) == 6


@pytest.mark.parametrize("change", COMPLETE_CHANGES, ids=lambda change: change.__name__)
def test_the_status_finds_the_change(change: Callable[[Path], None], complete: Live) -> None:
    assert complete.mount.status()["phase"] == "complete"
    change(complete.image)
    assert_failed(complete)


def test_a_copy_tool_ends_with_an_error(complete: Live, tmp_path: Path) -> None:
    edit(complete.image)
    done = subprocess.run(
        [tool("rclone"), "copy", "--retries", "1", complete.mount.path, tmp_path / "copy"],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert not list((tmp_path / "copy").rglob("*.*"))


def test_a_reader_of_what_is_in_memory_is_told(complete: Live) -> None:
    """It has its file open already, and what it reads needs no read of the image."""
    with complete.part(0).open("rb", buffering=0) as stream:
        assert len(stream.read(MIB)) == MIB
        edit(complete.image)

        def fails() -> bool:
            try:
                page = mmap.mmap(-1, MIB)
                descriptor = os.open(f"/proc/self/fd/{stream.fileno()}", os.O_RDONLY | os.O_DIRECT)
            except OSError as error:
                return error.errno == errno.ESTALE
            try:
                os.preadv(descriptor, [page], 5 * MIB)
            finally:
                os.close(descriptor)
            return False

        assert eventually(fails)
    assert_failed(complete)


def test_a_link_that_leads_elsewhere(original: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "latest", tmp_path / "other"
    link.symlink_to(original)
    other.write_bytes(b"another")
    log = tmp_path / "log"
    with mounted(link, tmp_path / "mnt", *KEEPING, "--log-file", log) as mount:
        live = Live(mount, log)
        assert len(names(mount.path)) == 6
        # The same file by another way is no change.
        hop = tmp_path / "hop"
        hop.symlink_to(original)
        link.unlink()
        assert live.part(0).read_bytes()
        link.symlink_to(hop)
        assert live.part(1).read_bytes()
        link.unlink()
        link.symlink_to(other)
        assert_stale(live.part(0).read_bytes)
        assert "another file is in its place" in mount.status()["error"]


@pytest.mark.parametrize("form", ["gzip", "xz", "qcow2"])
def test_changed_inside_another_form(form: str, tmp_path: Path) -> None:
    raw = images.random_image(tmp_path / "raw", 5 * MIB)
    image = tmp_path / "disk"
    if form == "qcow2":
        run(["qemu-img", "convert", "-O", "qcow2", raw, image])
    else:
        data = raw.read_bytes()
        image.write_bytes(gzip.compress(data) if form == "gzip" else lzma.compress(data, preset=0))
    with mounted(image, tmp_path / "mnt", *KEEPING) as mount:
        assert len(names(mount.path)) == 2
        raw.rename(image)
        assert_stale(mount.manifest().read_bytes)
        assert_stale((mount.path / "image.part.00").read_bytes)
        assert mount.status()["phase"] == "failed"
