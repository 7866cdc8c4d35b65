"""The only place that starts threads.

`Workers` has two kinds. The *pool*, `jobs` threads, makes blocks: reading,
deflating, checksums, all in code that releases the GIL. A `Lane` is one thread
that does what must stay in order: one seals, one digests. Neither knows an
event loop; whoever waits, waits on a `concurrent.futures.Future`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


def default_jobs() -> int:
    """Give the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Lane:
    """One thread that keeps the order of what it is given, at most `depth` calls behind."""

    def __init__(self, executor: Executor, depth: int) -> None:
        self._executor = executor
        self._depth = depth
        self._behind: deque[Future[object]] = deque()

    def do(self, call: Callable[[], object]) -> None:
        """Have `call` done after all before it; waits, and raises its error, if too far behind."""
        self._behind.append(self._executor.submit(call))
        while self._behind and (self._behind[0].done() or len(self._behind) > self._depth):
            self._behind.popleft().result()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have `call` done after all before it, however many they are."""
        return self._executor.submit(call)

    def finish(self) -> None:
        """Wait until all is done; raise the first error."""
        while self._behind:
            self._behind.popleft().result()


class Workers:
    """The threads of one mount: a pool of `jobs`, and lanes. Threads start when first needed."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool = ThreadPoolExecutor(jobs, "block")
        self._lanes: list[ThreadPoolExecutor] = []

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have a pool thread do `work`; first come, first served."""
        return self._pool.submit(work)

    def in_order(self, calls: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
        """Give the results of `calls` in their order, `ahead` of them under way meanwhile.

        The iterator may be left for any time and taken up again.
        """
        running: deque[Future[T]] = deque()
        for call in calls:
            running.append(self.submit(call))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def lane(self, name: str, depth: int) -> Lane:
        """Give a lane of its own thread."""
        executor = ThreadPoolExecutor(1, name)
        self._lanes.append(executor)
        return Lane(executor, depth)

    def close(self) -> None:
        """Let running work end, drop what waits. Lanes end first: they wait for the pool."""
        for executor in (*self._lanes, self._pool):
            executor.shutdown(wait=False, cancel_futures=True)
        for executor in (*self._lanes, self._pool):
            executor.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
