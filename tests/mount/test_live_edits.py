"""An image that is edited under a live mount: no wrong byte for anybody, and failed for good.

On a block device an edit leaves no trace but the bytes themselves, which is what the CRC of
each block is for. What a reader gets is compared byte for byte with what the bundle was.
"""

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, bundlefs, mounted
from tests.support.tools import run

MIB = images.MIB
SIZE = 45 * MIB
READERS = 4
# More than the blocks used last can hold (32 MiB), and no other cache: blocks are made again.
OPTIONS = ("--level", "1", "--cache-size", "0")


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    device = Path(run(["losetup", "--find", "--show", image]).decode().strip())
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with loop_device(images.random_image(tmp_path / "disk", SIZE)) as made:
        yield made


@pytest.fixture(params=["file", "block device"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "file":
        return images.random_image(tmp_path / "disk", SIZE)
    made = request.getfixturevalue("device")
    assert isinstance(made, Path)
    return made


def edit(source: Path, offset: int) -> None:
    """Change one byte where everybody sees it."""
    with source.open("r+b", buffering=0) as stream:
        stream.seek(offset)
        [old] = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([old ^ 1]))
        os.fsync(stream.fileno())


def drop_page_cache(path: Path) -> None:
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(slots=True)
class Reader:
    """Reads one part again and again and compares; ends at ESTALE. Other errors are raised."""

    path: Path
    expected: bytes
    done: threading.Event
    compared: int = 0
    stale: bool = False

    def __call__(self) -> None:
        while not (self.stale or self.done.is_set()):
            try:
                drop_page_cache(self.path)
                self._read()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self.stale = True

    def _read(self) -> None:
        with self.path.open("rb", buffering=0) as stream:
            offset = 0
            while piece := stream.read(300_000):
                assert piece == self.expected[offset : offset + len(piece)], "a wrong byte"
                offset += len(piece)
                self.compared += len(piece)
            assert offset == len(self.expected), "a short read"


def test_readers_while_an_indexed_block_is_edited(source: Path, tmp_path: Path) -> None:
    log, done = tmp_path / "log", threading.Event()
    with mounted(source, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        parts = mount.parts()
        readers = [Reader(part, part.read_bytes(), done) for part in parts]
        with ThreadPoolExecutor(len(readers)) as pool:
            futures = [pool.submit(reader) for reader in readers]
            try:
                assert eventually(lambda: all(reader.compared for reader in readers), 60)
                made = mount.status()["blocks_compressed"]
                edit(source, 13 * MIB)
                assert eventually(lambda: mount.status()["phase"] == "failed", 60)
                assert eventually(lambda: all(reader.stale for reader in readers), 60)
            finally:
                done.set()
            for future in futures:
                future.result()
        assert made > SIZE // MIB, "nothing was made again, so that nothing was tested"
        assert_failed_for_good(mount, log, source)


def assert_failed_for_good(mount: Mount, log: Path, source: Path) -> None:
    for part in mount.parts():
        with pytest.raises(OSError, match="Stale file handle"):
            drop_page_cache(part)
        with pytest.raises(OSError, match="Stale file handle"):
            part.read_bytes()
    [line] = [line for line in log.read_text().splitlines() if " ERROR: " in line]
    if source.is_block_device():
        assert "the image has changed: block 13, at offset 13631488 of its tar stream" in line
    else:
        assert f"image {source} was changed while in use: " in line


def test_a_file_edited_beyond_the_frontier(tmp_path: Path) -> None:
    image = images.random_image(tmp_path / "disk", SIZE)
    with mounted(image, tmp_path / "mnt", *OPTIONS) as mount:
        path = mount.path / "image.part.00"
        first = path.read_bytes()
        assert mount.status()["tar_bytes_done"] < 30 * MIB
        edit(image, 40 * MIB)
        with pytest.raises(OSError, match="Stale file handle"):
            list(mount.path.iterdir())
        Reader(path, first, threading.Event())()
        with pytest.raises(OSError, match="Stale file handle"):
            (mount.path / "image.part.03").read_bytes()


def test_a_device_edited_beyond_the_frontier(
    device: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    """Nobody has read what it was: the bundle is that of the device as it is now."""
    with mounted(device, tmp_path / "mnt", *OPTIONS, "--user-key", user_keys.private) as mount:
        (mount.path / "image.part.00").read_bytes()
        assert mount.status()["tar_bytes_done"] < 30 * MIB
        edit(device, 40 * MIB)
        assert oracles.part_digests(mount.manifest()) == oracles.sha1sum(mount.parts())
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, device)


@pytest.mark.parametrize("complete", [True, False])
def test_a_device_edited_between_two_mounts(
    device: Path, tmp_path: Path, user_keys: KeyPair, *, complete: bool
) -> None:
    """The remount cannot tell at once; it refuses once it meets the block, and says what to do."""
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(device, tmp_path / "mnt", *options) as mount:
        first = (mount.path / "image.part.00").read_bytes()
        if complete:
            assert len(mount.parts()) == 5
    edit(device, 3 * MIB)
    log = tmp_path / "log"
    with mounted(device, tmp_path / "mnt", *options, "--log-file", log) as mount:
        path = mount.path / "image.part.00"
        assert mount.status()["parts_made"] == (5 if complete else 1)
        reader = Reader(path, first, threading.Event())
        reader()
        assert reader.stale
        with pytest.raises(OSError, match="Stale file handle"):
            (mount.path / "image.part.04").read_bytes()
    assert "block 3, at offset 3145728 of its tar stream" in log.read_text()
    assert "mount it anew with --fresh" in log.read_text()
    with mounted(device, tmp_path / "mnt", *options, "--fresh") as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, device)
    bundlefs("state", "forget", device)
