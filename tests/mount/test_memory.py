"""Memory is bounded, however many read, and however many threads are asked for."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.support import images, mounts
from tests.support.mounts import mounted
from tests.support.processes import peak_memory

MIB = images.MIB
CACHE = 64 * MIB
BEYOND = 200 * MIB
BEYOND_WHERE_SCARCE = 120 * MIB
"""What the README promises beside the cache is about 180 and 110 MiB."""
READERS = 64
READS = 15


def read(parts: list[Path], reader: int) -> None:
    """Read pieces at random, past the page cache."""
    chance = Random(reader)  # noqa: S311  # the same pieces each time
    for _ in range(READS):
        with chance.choice(parts).open("rb", buffering=0) as part:
            os.posix_fadvise(part.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(part.fileno(), MIB, chance.randrange(9 * MIB))


# A machine whose memory is scarce, as far as the heaps are concerned.
SCARCE = (
    *(sys.executable, "-c"),
    (
        "import sys; from bundlefs.base import heap; heap.memory_limit = lambda: 1 << 30;"
        " from bundlefs.cli import main; sys.exit(main())"
    ),
)


@pytest.mark.parametrize("jobs", ["2", "32"])
@pytest.mark.parametrize(
    ("program", "beyond"),
    [(mounts.BUNDLEFS, BEYOND), (SCARCE, BEYOND_WHERE_SCARCE)],
    ids=["much", "scarce"],
)
def test_many_readers_at_random(
    tmp_path: Path,
    program: tuple[str, ...],
    beyond: int,
    jobs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mounts, "BUNDLEFS", program)
    image = images.random_image(tmp_path / "disk", 160 * MIB)
    options = ("--level", "1", "--state", "none", "--cache-size", str(CACHE), "--jobs", jobs)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        parts = mount.parts()
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(partial(read, parts), range(READERS)))
        assert mount.status()["blocks_compressed"] > 161, "the cache had all that was read"
        peak = peak_memory(mount.pid)
        assert peak < CACHE + beyond, f"{peak >> 20} MiB"
