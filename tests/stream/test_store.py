"""What is kept of the sealed blocks, in memory and on real file systems that run full or lie."""

import errno
import logging
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from bundlefs.base.errors import UsageError
from bundlefs.bundling import store
from bundlefs.bundling.store import BlockStore, Spill, Store
from tests.stream.engine import in_threads
from tests.support.tools import run

KIB = 1 << 10
MIB = 1 << 20
NOBODY = 65534


def content(block: int, size: int) -> memoryview:
    """Give bytes that are no other block's."""
    return memoryview(block.to_bytes(8) * (size // 8 + 1))[:size]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def free(folder: Path) -> int:
    """Give the free bytes of a file system."""
    found = os.statvfs(folder)
    return found.f_bfree * found.f_bsize


def spill_file(folder: Path) -> Path:
    """Give the way to the one open file of this process that lies nameless in `folder`."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    found = [link for link in links if str(link.readlink()).startswith(f"{folder}/")]
    assert len(found) == 1, f"{len(found)} files of {folder} are open"
    return found[0]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Give up root's rights over files for a while."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# --- memory ---


def test_the_beginning_is_kept_and_stays() -> None:
    kept = BlockStore(3 * MIB)
    for block in range(100):
        kept.put_first(block, content(block, MIB))
    for block in range(200, 300):
        kept.put_again(block, content(block, MIB))
    assert [block for block in range(100) if kept.has(block)] == [0, 1, 2]
    assert all(kept.get_fast(block) == content(block, MIB) for block in range(3))


def test_a_block_that_has_no_room_leaves_it_to_smaller_ones() -> None:
    kept = BlockStore(MIB)
    for block, size in enumerate((MIB - 10, 11, 10, 1)):
        kept.put_first(block, content(block, size))
    flood(kept)
    assert [kept.has(block) for block in range(4)] == [True, False, True, False]


def flood(kept: Store) -> None:
    """Push everything out of the recent blocks."""
    for block in range(10_000, 10_000 + store.RECENT_SIZE // MIB):
        kept.put_again(block, content(block, MIB))


def test_recent_blocks_fill_their_limit_and_no_more() -> None:
    kept = BlockStore(0)
    count = store.RECENT_SIZE // MIB
    for block in range(3 * count):
        kept.put_first(block, content(block, MIB))
    present = [block for block in range(3 * count) if kept.has(block)]
    assert present == list(range(2 * count, 3 * count))


def test_a_block_that_is_read_is_recent_again() -> None:
    kept = BlockStore(0)
    count = store.RECENT_SIZE // MIB
    for block in range(count):
        kept.put_again(block, content(block, MIB))
    assert kept.get_fast(0) == content(0, MIB)
    kept.put_again(count, content(count, MIB))
    assert [kept.has(block) for block in (0, 1, 2)] == [True, False, True]


def test_a_block_put_twice_counts_once() -> None:
    kept = BlockStore(0)
    for _ in range(3 * store.RECENT_SIZE // MIB):
        kept.put_again(0, content(0, MIB))
    for block in range(1, store.RECENT_SIZE // MIB):
        kept.put_again(block, content(block, MIB))
    assert kept.get_fast(0) == content(0, MIB)


def test_many_threads_find_what_is_there_or_nothing() -> None:
    kept = BlockStore(4 * MIB)
    contents = [content(block, MIB) for block in range(60)]

    def use(thread: int) -> None:
        for step in range(400):
            block = (thread * 7 + step) % 60
            (kept.put_first if thread % 2 else kept.put_again)(block, contents[block])
            other = (block + 1) % 60
            found = kept.get_fast(other)
            assert found is None or found is contents[other]

    in_threads(8, [partial(use, thread) for thread in range(8)])
    # Whatever the order was: no more than both limits.
    assert sum(map(kept.has, range(60))) <= 4 + store.RECENT_SIZE // MIB


def test_closing_drops_everything(tmp_path: Path) -> None:
    kept = BlockStore(MIB, Spill(tmp_path))
    for block in range(3):
        kept.put_first(block, content(block, MIB))
    kept.close()
    assert kept.get_fast(0) is None
    assert kept.get_fast(2) is None


# --- disk ---


def test_all_blocks_are_spilled_and_found(tmp_path: Path) -> None:
    with closing(BlockStore(MIB, Spill(tmp_path))) as kept:
        for block in range(80):
            kept.put_first(block, content(block, MIB + block))
        assert [block for block in range(80) if kept.get_fast(block) is None]
        for block in range(80):
            assert kept.has(block)
            assert kept.get(block) == content(block, MIB + block)
            # What came from disk is likely to be read on, from memory.
            assert kept.get_fast(block) == content(block, MIB + block)
        assert not kept.has(80)
        assert kept.get(80) is None


def test_the_file_is_nameless_and_private(tmp_path: Path) -> None:
    with closing(Spill(tmp_path)) as spill:
        spill.put((0, 0), content(0, MIB))
        found = spill_file(tmp_path).stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert (found.st_nlink, found.st_size) == (0, MIB)
        assert list(tmp_path.iterdir()) == []


def test_the_file_cannot_be_given_a_name(tmp_path: Path) -> None:
    with closing(Spill(tmp_path)):
        link = f"/proc/{os.getpid()}/fd/{spill_file(tmp_path).name}"
        with pytest.raises(AssertionError, match="No such file or directory"):
            run(["ln", "--logical", link, tmp_path / "name"])


def test_a_file_system_that_knows_no_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        # As NFS does; every file system that a test can make here has them.
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with closing(Spill(tmp_path)) as spill:
        spill.put((0, 0), content(0, MIB))
        found = spill_file(tmp_path).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_nlink) == (0o600, 0)
        assert list(tmp_path.iterdir()) == []
        assert spill.get((0, 0)) == content(0, MIB)


def test_a_full_disk_is_told_once_and_the_rest_goes_on(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(BlockStore(0, Spill(disk))) as kept:
        for block in range(100):
            kept.put_first(block, content(block, MIB - block))
        [warning] = caplog.records
        assert warning.levelno == logging.WARNING
        assert "No space left on device" in warning.message
        assert str(disk) in warning.message
        flood(kept)
        present = [block for block in range(100) if kept.has(block)]
        assert present == list(range(len(present)))
        assert len(present) >= 3
        for block in range(100):
            assert kept.get(block) == (content(block, MIB - block) if block in present else None)
        assert len(caplog.records) == 1


def test_closing_gives_the_space_back(disk: Path) -> None:
    before = free(disk)
    spill = Spill(disk)
    for block in range(3):
        spill.put((0, block), content(block, MIB))
    assert free(disk) <= before - 3 * MIB
    spill.close()
    assert free(disk) == before


def test_changed_bytes_are_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Spill(tmp_path)) as spill:
        for block in range(3):
            spill.put((0, block), content(block, MIB))
        with spill_file(tmp_path).open("r+b") as file:
            file.seek(MIB + 777)
            file.write(b"!")
        assert spill.get((0, 1)) is None
        [warning] = caplog.records
        assert warning.levelno == logging.WARNING
        assert "block 1 dropped" in warning.message
        assert (0, 1) not in spill
        assert spill.get((0, 1)) is None
        assert len(caplog.records) == 1
        assert [bytes(spill.get((0, block)) or b"") for block in (0, 2)] == [
            content(0, MIB),
            content(2, MIB),
        ]


def test_a_shortened_file_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(BlockStore(0, Spill(tmp_path))) as kept:
        for block in range(3):
            kept.put_first(block, content(block, MIB))
        flood(kept)
        os.truncate(spill_file(tmp_path), 3 * MIB - 1)
        assert kept.get(2) is None
        assert not kept.has(2)
        assert kept.get(1) == content(1, MIB)
        assert len(caplog.records) == 1


def test_many_readers_of_one_damaged_block_all_hear_that_it_is_gone(tmp_path: Path) -> None:
    with closing(Spill(tmp_path)) as spill:
        for block in range(200):
            spill.put((0, block), content(block, 64 * KIB))
            with spill_file(tmp_path).open("r+b") as file:
                file.seek(block * 64 * KIB)
                file.write(b"!")
            together = threading.Barrier(8)

            def get(block: int = block, together: threading.Barrier = together) -> object:
                together.wait()
                return spill.get((0, block))

            assert in_threads(8, [get] * 8) == [None] * 8


def test_a_block_is_written_once(tmp_path: Path) -> None:
    with closing(Spill(tmp_path)) as spill:
        spill.put((0, 0), content(0, MIB))
        spill.put((0, 0), content(1, MIB))
        assert spill.get((0, 0)) == content(0, MIB)
        assert spill_file(tmp_path).stat().st_size == MIB


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (("missing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(UsageError, match=rf"{tmp_path / folder}: {reason}.*--cache-dir"):
            Spill(tmp_path / folder)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with without_privileges(), pytest.raises(UsageError, match=r"Permission denied.*--cache-dir"):
        Spill(tmp_path)


def test_a_read_only_file_system_is_refused(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UsageError, match=r"Read-only file system.*--cache-dir"):
        Spill(disk)
    assert list(disk.iterdir()) == []


# --- several bundles ---


def test_bundles_share_the_limit_and_no_block(tmp_path: Path) -> None:
    with closing(BlockStore(3 * MIB, Spill(tmp_path))) as one:
        other = one.share(1)
        for block in range(2):
            one.put_first(block, content(block, MIB))
            other.put_first(block, content(10 + block, MIB))
        flood(other)
        in_memory = [
            store.get_fast(block) is not None for store in (one, other) for block in (0, 1)
        ]
        assert in_memory == [True, True, True, False]
        for block in range(2):
            assert one.get(block) == content(block, MIB)
            assert other.get(block) == content(10 + block, MIB)
