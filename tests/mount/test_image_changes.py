"""An image that changes, shrinks or fails under a live mount: an error for good, never wrong bytes.

Nothing may look like a shorter or an empty bundle: a sink that mirrors would delete what is
in the bucket.
"""

import errno
import gzip
import hashlib
import lzma
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.mount.broken_disk import broken_disk
from tests.mount.commands import attempt, eventually, names
from tests.support import images
from tests.support.mounts import Mount, mounted
from tests.support.processes import ended
from tests.support.tools import run, tool

MIB = images.MIB
SIZE = 45 * MIB
# Few blocks are kept, so that a later part has to be made again from the image.
OPTIONS = ("--level", "1", "--cache-size", "0", "--state", "none")


@dataclass(frozen=True, slots=True)
class Live:
    """A live mount of an image that the test may spoil, and the mount's log."""

    mount: Mount
    log: Path

    @property
    def image(self) -> Path:
        return self.mount.image

    def part(self, number: int) -> Path:
        return self.mount.path / f"image.part.{number:02}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("original") / "disk", SIZE)


@pytest.fixture
def live(original: Path, tmp_path: Path) -> Iterator[Live]:
    image = Path(shutil.copy(original, tmp_path / "disk"))
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        yield Live(mount, log)


def shrink(image: Path) -> None:
    os.truncate(image, SIZE - 1)


def empty(image: Path) -> None:
    os.truncate(image, 0)


def grow(image: Path) -> None:
    os.truncate(image, SIZE + 1)


def edit(image: Path) -> None:
    """Change one byte in the middle."""
    with image.open("r+b") as stream:
        stream.seek(SIZE // 2)
        [old] = stream.read(1)
        stream.seek(SIZE // 2)
        stream.write(bytes([old ^ 1]))


def edit_and_keep_mtime(image: Path) -> None:
    before = image.stat()
    edit(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = [shrink, empty, grow, edit, edit_and_keep_mtime]
every_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


def read_past_the_page_cache(path: Path, size: int = MIB) -> bytes:
    """Ask the mount itself, whatever the kernel still remembers."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size) as page:
            return page[: os.preadv(descriptor, [page], 0)]
    finally:
        os.close(descriptor)


def assert_stale(ask: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="Stale file handle") as caught:
        ask()
    assert caught.value.errno == errno.ESTALE


def assert_failed(live: Live) -> None:
    """The status says so for good, to people and scripts, and the log has it as one error."""
    status = live.mount.status()
    assert status["phase"] == "failed"
    assert f"image {live.image} was changed while in use: " in status["error"]
    shown = attempt("status", live.mount.path)
    assert shown.code == 1
    assert status["error"] in shown.out
    errors = [line for line in live.log.read_text().splitlines() if " ERROR: " in line]
    assert len(errors) == 1
    assert status["error"] in errors[0]


@every_change
def test_changed_before_anything_was_read(change: Callable[[Path], None], live: Live) -> None:
    change(live.image)
    assert_stale(live.part(0).read_bytes)
    assert_failed(live)
    # It must not come to look like an empty directory.
    assert_stale(lambda: names(live.mount.path))
    assert_stale(live.part(3).stat)
    assert_stale(live.mount.manifest().stat)


def test_a_listing_finds_the_change(live: Live) -> None:
    edit(live.image)
    assert_stale(lambda: names(live.mount.path))
    assert_failed(live)


@every_change
def test_changed_after_the_listing(change: Callable[[Path], None], live: Live) -> None:
    listed = {path.name: path.stat().st_size for path in live.mount.path.iterdir()}
    assert len(listed) == 6
    first = live.part(0).read_bytes()
    change(live.image)
    assert_stale(live.part(1).read_bytes)
    assert_failed(live)
    again = {path.name: path.stat().st_size for path in live.mount.path.iterdir()}
    assert again == listed
    for number in range(5):
        assert_stale(partial(read_past_the_page_cache, live.part(number)))
    # What the kernel remembers of a part is what the part was.
    assert read_or_nothing(live.part(0)) in (first, b"")


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_it_stays_failed_when_the_image_is_put_back(live: Live, original: Path) -> None:
    before = live.image.stat()
    edit(live.image)
    assert_stale(live.part(0).read_bytes)
    shutil.copyfile(original, live.image)
    os.utime(live.image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_stale(live.part(0).read_bytes)
    assert_stale(lambda: names(live.mount.path))
    assert_failed(live)


def test_changed_in_the_middle_of_a_part(live: Live, tmp_path: Path) -> None:
    """A reader that is half through gets an error, and no byte of another bundle before it."""
    whole = Path(shutil.copy(live.part(0), tmp_path / "whole")).read_bytes()
    assert len(live.mount.parts()) == 5
    drop_page_cache(live.part(0))
    read: list[bytes] = []
    with live.part(0).open("rb", buffering=0) as stream:
        read.append(stream.read(MIB))
        edit(live.image)
        assert_stale(lambda: read.extend(iter(partial(stream.read, MIB), b"")))
    assert live.mount.status()["phase"] == "failed"
    assert whole.startswith(b"".join(read))


def drop_page_cache(path: Path) -> None:
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_sink_fails(live: Live, tmp_path: Path) -> None:
    edit(live.image)
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(AssertionError, match="Stale file handle"):
        run(["cp", "-r", f"{live.mount.path}/.", copy])
    assert list(copy.iterdir()) == []


# What is complete and in memory needs no read of the image: it is to be noticed all the same.

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


GOOD = 12 * MIB


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Live]:
    """A mount of a disk of which the first 12 MiB of 25 can be read."""
    log = tmp_path / "log"
    with broken_disk(tmp_path / "disks", 25 * MIB, GOOD) as disk:
        # Level 0: a listing needs no read, so names and sizes are known from the start.
        options = ("--level", "0", "--jobs", "1", "--log-file", log)
        with mounted(disk, tmp_path / "mnt", *options) as mount:
            yield Live(mount, log)


def test_a_disk_that_cannot_be_read(broken: Live) -> None:
    listed = names(broken.mount.path)
    assert listed == ["image.manifest.xml", *(f"image.part.{number:02}" for number in range(3))]
    whole = broken.part(0).read_bytes()
    with pytest.raises(OSError, match="Input/output error") as caught:
        broken.part(1).read_bytes()
    assert caught.value.errno == errno.EIO
    status = broken.mount.status()
    assert status["phase"] == "failed"
    assert "Input/output error" in status["error"]
    assert status["parts_made"] == 1
    assert " ERROR: " in broken.log.read_text()
    assert names(broken.mount.path) == listed
    assert len(whole) == 10 * MIB
    sha1 = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    assert os.getxattr(broken.part(0), "user.bundlefs.sha1").decode() == sha1


def test_a_failed_mount_ends_as_any_other(broken: Live) -> None:
    assert eventually(lambda: broken.mount.status()["phase"] == "idle")
    with pytest.raises(OSError, match="Input/output error"):
        broken.part(2).read_bytes()
    broken.mount.umount()
    assert ended(broken.mount.pid, 1)
