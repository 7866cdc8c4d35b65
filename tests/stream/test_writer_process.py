"""A `BundleWriter` in a process of its own: its memory, its threads, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stream.engine import HANG

MIB = 1 << 20

DROPPING = """
import json, sys, threading
from bundlefs import BundleWriter
from bundlefs.bundling.writer import default_jobs
class Dropped:
    def open(self, name): return self
    def write(self, data): pass
    def close(self): pass
    def discard(self): pass
size, level = int(sys.argv[1]), int(sys.argv[2])
piece = bytes(range(256)) * (1 << 14)
pool = set()
with BundleWriter("image", size, Dropped(), level=level) as writer:
    for _ in range(size // len(piece)):
        writer.write(piece)
        pool |= {t.name for t in threading.enumerate() if t.name.startswith("block")}
# Not getrusage: that counts what the process was before its exec.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"peak": int(peak) << 10, "pool": len(pool), "jobs": default_jobs()}))
"""


def dropped(size: int, level: int) -> dict[str, int]:
    """Bundle `size` bytes to nowhere, in a process of its own; give its peak memory and threads."""
    command = [sys.executable, "-c", DROPPING, str(size), str(level)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("level", [0, 1])
def test_memory_does_not_grow_with_the_image(level: int) -> None:
    small, large = dropped(256 * MIB, level), dropped(1024 * MIB, level)
    assert large["peak"] < small["peak"] + 16 * MIB
    assert large["peak"] < 160 * MIB


def test_all_processors_are_used() -> None:
    found = dropped(64 * MIB, 1)
    assert found["pool"] == found["jobs"]


def test_it_says_nothing_by_itself(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A library that fails tells its caller, not the caller's stderr."""
    (tmp_path / "file").touch()
    script = (
        "from bundlefs import *\n"
        "with BundleWriter('image', 1, DirectorySink('file/x')) as w: w.write(b'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.stderr.startswith("Traceback")
    assert "'file/x'" in done.stderr.splitlines()[-1]
    assert capfd.readouterr() == ("", "")
