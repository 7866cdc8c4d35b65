"""A mount that nobody uses does nothing, and one that is used for long does not grow."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.commands import names
from tests.support import images
from tests.support.mounts import Mount, mounted

IDLE_SECONDS = 10
IDLE_CPU_SECONDS = 0.05
LISTINGS, OPENS = 1000, 10_000
GROWTH = 4 << 20
"""A leak of 1 KiB an operation would be 11 MiB; the allocators' noise is well below 1 MiB."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 12 * images.MIB)


@pytest.fixture
def mount(image: Path, tmp_path: Path) -> Iterator[Mount]:
    with mounted(image, tmp_path / "mnt") as made:
        yield made


def cpu_seconds(pid: int) -> float:
    """Give the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Give the bytes of memory that are a process's own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if "Private_" in line)


def files(pid: int) -> int:
    """Count the open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_an_idle_mount_does_nothing(image: Path, tmp_path: Path) -> None:
    """One that was never asked, one that is complete, and one of level 0; at the same time."""
    with ExitStack() as stack:
        options = {"new": [], "complete": [], "stored": ["--level", "0"]}
        mounts = [
            stack.enter_context(mounted(image, tmp_path / name, "--state", "none", *words))
            for name, words in options.items()
        ]
        assert mounts[1].parts()
        time.sleep(1)
        before = [cpu_seconds(mount.pid) for mount in mounts]
        time.sleep(IDLE_SECONDS)
        used = [cpu_seconds(mount.pid) - then for mount, then in zip(mounts, before, strict=True)]
    assert max(used) < IDLE_CPU_SECONDS, used


def list_and_open(mount: Mount, listings: int, opens: int) -> None:
    part = mount.path / "image.part.00"
    status = mount.path / ".bundlefs/status.json"
    for _ in range(listings):
        assert len(names(mount.path)) == 3
    for number in range(opens):
        with (status if number % 10 == 0 else part).open("rb", buffering=0) as stream:
            assert stream.read(1)


def test_long_use_leaks_nothing(mount: Mount) -> None:
    list_and_open(mount, LISTINGS // 5, OPENS // 5)
    before, opened = memory(mount.pid), files(mount.pid)
    list_and_open(mount, LISTINGS, OPENS)
    assert memory(mount.pid) - before < GROWTH
    assert files(mount.pid) == opened


def test_broken_off_readers_leak_nothing(mount: Mount) -> None:
    assert mount.parts()
    opened = files(mount.pid)
    for _ in range(20):
        with subprocess.Popen(
            ["cat", mount.path / "image.part.00"], stdout=subprocess.PIPE
        ) as reader:
            assert reader.stdout
            assert reader.stdout.read(1)
            reader.kill()
        os.getxattr(mount.path / "image.part.01", "user.bundlefs.sha1")
    assert files(mount.pid) == opened
