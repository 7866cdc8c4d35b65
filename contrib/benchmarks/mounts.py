"""The measured mount, and the mount that it is held against."""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import Cost, Daemon

ACCOUNT = "123456789012"


@contextmanager
def mounted(image: Path, mountpoint: Path, *options: str) -> Iterator[Daemon]:
    """Mount `image` with bundlefs."""
    mountpoint.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bundlefs", "mount", "-f", "--no-size-limit"]
    command += ["--account", ACCOUNT, "--state", "none", *options, str(image), str(mountpoint)]
    with Daemon(command, lambda: os.path.ismount(mountpoint)) as daemon:
        yield daemon


@contextmanager
def from_memory(folder: Path, mountpoint: Path) -> Iterator[Daemon]:
    """Mount the files of `folder` with the barest pyfuse3 file system, from memory."""
    mountpoint.mkdir(exist_ok=True)
    script = Path(__file__).with_name("from_memory.py")
    command = [sys.executable, str(script), str(folder), str(mountpoint)]
    with Daemon(command, lambda: os.path.ismount(mountpoint)) as daemon:
        yield daemon


def status(mountpoint: Path) -> dict[str, Any]:
    """Return what a mount says of itself."""
    found: dict[str, Any] = json.loads((mountpoint / ".bundlefs/status.json").read_bytes())
    return found


def first_pass(image: Path, mountpoint: Path, *options: str) -> Cost:
    """Measure a listing and a manifest of a fresh mount: the whole first pass, at any level."""
    with mounted(image, mountpoint, *options) as daemon:
        start = time.perf_counter()
        names = sorted(mountpoint.iterdir())
        (mountpoint / "image.manifest.xml").read_bytes()
        wall = time.perf_counter() - start
        size = sum(path.stat().st_size for path in names if ".part." in path.name)
        peak = daemon.peak()
        return Cost(wall, daemon.end(), peak, size)


def read_all(mountpoint: Path) -> tuple[float, int]:
    """Read every part once, past the page cache; give seconds and bytes."""
    paths = sorted(path for path in mountpoint.iterdir() if ".part." in path.name)
    total, buffer = 0, bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return time.perf_counter() - start, total


def read_at_random(mountpoint: Path, readers: int, seconds: float) -> int:
    """Read pieces of parts at random, past the page cache, by many at a time; give how many."""
    paths = sorted(path for path in mountpoint.iterdir() if ".part." in path.name)
    end = time.perf_counter() + seconds

    def read(reader: int) -> int:
        chance, count = random.Random(reader), 0  # noqa: S311  # the same pieces in each run
        while time.perf_counter() < end:
            path = chance.choice(paths)
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(file.fileno(), 1 << 20, chance.randrange(path.stat().st_size))
            count += 1
        return count

    with ThreadPoolExecutor(readers) as pool:
        return sum(pool.map(read, range(readers)))
