"""Costs of whole process trees: wall time, CPU time, peak memory.

Wall and CPU come from the kernel's accounting of finished children. Peak memory
is the largest sum of resident sizes over the tree, sampled, or the kernel's own
high-water mark where one process is all there is.
"""

import os
import resource
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SAMPLE_SECONDS = 0.05
_PAGE = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, seconds, bytes; `size` is the bundle's where one is made.

    `least` and `most` are the seconds of the quickest and of the slowest run, of several.
    """

    wall: float
    cpu: float
    peak: int
    size: int = 0
    least: float = 0
    most: float = 0

    @classmethod
    def median(cls, costs: Sequence[Self]) -> Self:
        """Return the median of each figure, and between which seconds the runs were."""
        return cls(
            statistics.median(cost.wall for cost in costs),
            statistics.median(cost.cpu for cost in costs),
            int(statistics.median(cost.peak for cost in costs)),
            int(statistics.median(cost.size for cost in costs)),
            min(cost.wall for cost in costs),
            max(cost.wall for cost in costs),
        )


class PeakMemory:
    """Samples the resident memory of a session's processes until it is stopped."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            sizes = [_resident(pid) for pid in _members(self._session)]
            self.bytes = max(self.bytes, sum(sizes))
            if self._end.wait(_SAMPLE_SECONDS):
                return


def _members(session: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == session:
                    members.append(int(entry.name))
    return members


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def shell(script: str, folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a bash script in a session of its own and in `folder`; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    with PeakMemory(process.pid) as memory:
        code = process.wait()
    wall = time.perf_counter() - start
    if code:
        raise SystemExit(f"exit code {code}: {script}")
    return Cost(wall, _cpu_since(before), memory.bytes)


def _cpu_since(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


class Daemon:
    """A foreground daemon of the benchmark: started, waited for, measured, ended by SIGTERM."""

    def __init__(self, command: Sequence[str], ready: Callable[[], bool]) -> None:
        self._before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not ready():
            if self._process.poll() is not None:
                raise SystemExit(f"ended at once: {' '.join(command)}")
            time.sleep(0.01)

    def peak(self) -> int:
        """Return the high-water mark of its resident memory so far, in bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu(self) -> float:
        """Return the CPU seconds that it has taken so far."""
        about = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        # utime, stime, and those of the children that it has waited for [proc(5)]
        return sum(int(ticks) for ticks in about[11:15]) / os.sysconf("SC_CLK_TCK")

    def end(self) -> float:
        """End it and give the CPU seconds that it took."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        return _cpu_since(self._before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
