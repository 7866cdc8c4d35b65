"""What the benchmark is doing: a line for each step on stderr, with the time so far."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from measure import Cost

_BEGUN = time.monotonic()


def step(what: str) -> None:
    """Say what begins now."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGUN), 60)
    print(f"[{minutes:3d}:{seconds:02d}] {what}", file=sys.stderr, flush=True)


@contextmanager
def scenario(name: str, number: int, count: int) -> Iterator[None]:
    """Say that a scenario begins, and how long it took."""
    step(f"scenario {number} of {count}: {name}")
    begun = time.monotonic()
    yield
    step(f"{name} took {time.monotonic() - begun:.0f} s")


def runs(count: int, contenders: dict[str, Callable[[], Cost]]) -> dict[str, Cost]:
    """Measure each contender `count` times, all in turn; return the median of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for run in range(1, count + 1):
        for name, measure in contenders.items():
            step(f"  run {run} of {count}: {name}")
            costs[name].append(measure())
    return {name: Cost.median(found) for name, found in costs.items()}
