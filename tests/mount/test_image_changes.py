"""An image that changes or shrinks under a live mount: an error for good, never wrong bytes.

Nothing may look like a shorter or an empty bundle: a sink that mirrors would delete what is
in the bucket.
"""

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.commands import names
from tests.mount.live import CHANGES, Live, assert_failed, assert_stale, edit
from tests.support import images
from tests.support.mounts import mounted
from tests.support.tools import run

MIB = images.MIB
# Few blocks are kept, so that a later part has to be made again from the image.
OPTIONS = ("--level", "1", "--cache-size", "0", "--state", "none")


@pytest.fixture
def live(original: Path, tmp_path: Path) -> Iterator[Live]:
    image = Path(shutil.copy(original, tmp_path / "disk"))
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        yield Live(mount, log)


every_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


def read_past_the_page_cache(path: Path, size: int = MIB) -> bytes:
    """Ask the mount itself, whatever the kernel still remembers."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size) as page:
            return page[: os.preadv(descriptor, [page], 0)]
    finally:
        os.close(descriptor)


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
