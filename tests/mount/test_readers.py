"""Sixteen readers at random places of a live mount, while it is being made and afterwards.

Every mount has a key of its own, so there is no bundle to compare with: the
readers write down what they saw, and that is held against the parts as `cat`
reads them at the end, which openssl, gunzip and tar turn back into the image.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, mounted

MIB = images.MIB
PART = 10 * MIB
READERS = 16
SECONDS = 1.5
"""For each half: before the index is complete, and afterwards."""

EARLY = 2
"""Parts that the readers keep to at first, so that nothing moves the frontier to the end."""

OPTIONS = [
    ("--level", "0", "--cache-size", "0"),
    ("--level", "0", "--no-sparse"),
    ("--level", "1"),
    ("--level", "1", "--no-sparse", "--cache-size", "0", "--no-page-cache"),
    ("--level", "6", "--cache-size", "0"),
    ("--level", "6", "--no-sparse"),
]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one read gave: SHA-1 of the bytes at an offset of a part."""

    part: str
    offset: int
    asked: int
    got: int
    digest: bytes


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB of noise, text and holes: five parts and more, more than the recent blocks hold."""
    data = {
        0: b"".join(images.noise(30 * MIB)),
        34 * MIB + 4096: images.text(2 * MIB),
        38 * MIB: b"".join(images.noise(20 * MIB + 3, "more")),
    }
    return images.sparse_image(tmp_path_factory.mktemp("readers") / "disk", 64 * MIB + 777, data)


class Reader:
    """Reads at random places of parts until it is told to stop.

    Odd ones go around the page cache; even ones go through it, and throw out what they read.
    """

    def __init__(self, mount: Mount, number: int) -> None:
        self._mount = mount
        self._random = random.Random(number)  # noqa: S311 - places, not secrets
        self._flags = os.O_RDONLY | (os.O_DIRECT if number % 2 else 0)
        self.seen: list[Seen] = []

    def read_until(self, stop: Callable[[], bool], parts: list[str]) -> None:
        """Read on; each file is opened for some reads and closed."""
        while not stop():
            name = self._random.choice(parts)
            file = os.open(self._mount.path / name, self._flags)
            try:
                for _ in range(self._random.randrange(1, 12)):
                    self._read(file, name)
            finally:
                os.close(file)

    def _read(self, file: int, name: str) -> None:
        offset = self._random.choice([self._random.randrange(PART), PART - 100, 0, 8 * MIB])
        length = self._random.choice([1, 4096, 131072, self._random.randrange(1, 2 * MIB)])
        data = os.pread(file, length, offset)
        self.seen.append(Seen(name, offset, length, len(data), hashlib.sha1(data).digest()))
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def reading(readers: list[Reader], parts: list[str]) -> Iterator[None]:
    """Have all readers read for the length of a `with`."""
    stopped = False
    with ThreadPoolExecutor(READERS) as pool:
        futures: list[Future[None]] = [
            pool.submit(reader.read_until, lambda: stopped, parts) for reader in readers
        ]
        try:
            yield
        finally:
            stopped = True
        for future in futures:
            future.result()


def read_before_the_index_is_complete(mount: Mount, readers: list[Reader]) -> None:
    early = [f"image.part.{number:02}" for number in range(EARLY)]
    with reading(readers, early):
        time.sleep(SECONDS)
    assert mount.status()["phase"] == "idle"
    assert all(reader.seen for reader in readers)


def read_while_and_after_it_is_completed(mount: Mount, readers: list[Reader]) -> list[str]:
    names = [f"image.part.{number:02}" for number in range(EARLY + 2)]
    with reading(readers, names):
        parts = [path.name for path in mount.parts()]
    with reading(readers, parts):
        assert mount.manifest().read_bytes()
        time.sleep(SECONDS)
    assert mount.status()["phase"] == "complete"
    return parts


def assert_all_true(readers: list[Reader], wholes: dict[str, bytes]) -> None:
    """Hold every read against the parts."""
    for seen in (seen for reader in readers for seen in reader.seen):
        expected = wholes[seen.part][seen.offset : seen.offset + seen.asked]
        assert seen.got == len(expected), seen
        assert seen.digest == hashlib.sha1(expected).digest(), seen


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_every_byte_is_the_one(
    image: Path, mountpoint: Path, user_keys: KeyPair, options: tuple[str, ...]
) -> None:
    own = ("--state", "none", "--user-key", user_keys.private)
    with mounted(image, mountpoint, *own, *options) as mount:
        readers = [Reader(mount, number) for number in range(READERS)]
        read_before_the_index_is_complete(mount, readers)
        parts = [mount.path / name for name in read_while_and_after_it_is_completed(mount, readers)]
        # Past the page cache's copies, if it still has any.
        wholes = {path.name: path.read_bytes() for path in parts}
        assert_all_true(readers, wholes)
        assert {seen.part for reader in readers for seen in reader.seen} == set(wholes)
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(parts, secrets, image)
        assert oracles.part_digests(mount.manifest()) == [
            hashlib.sha1(whole).hexdigest() for whole in wholes.values()
        ]


def test_the_readers_do_reach_the_mount(image: Path, mountpoint: Path) -> None:
    """The test above means nothing if the page cache answers."""
    with mounted(
        image, mountpoint, "--state", "none", "--level", "1", "--cache-size", "0", "--no-page-cache"
    ) as mount:
        parts = [path.name for path in mount.parts()]
        before = mount.status()["blocks_compressed"]
        readers = [Reader(mount, number) for number in (0, 2)]
        for reader in readers:
            reader.read_until(partial(bool, reader.seen), parts)
            reader.seen.clear()
        blocks = -(-mount.status()["tar_size"] // MIB)
        with reading(readers, parts):
            assert eventually(lambda: mount.status()["blocks_compressed"] - before > blocks, 60)
