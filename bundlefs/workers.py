"""The only place that starts threads.

`Workers` has two kinds. The *pool*, `jobs` threads, makes blocks: reading,
deflating, checksums, all in code that releases the GIL. A `Lane` does what must
stay in order, one call at a time: one reads, one digests; without anything to do it
has no thread. Neither knows an event loop; whoever waits, waits on a
`concurrent.futures.Future`.

All bundles of a mount share the pool. Their passes take *turns*, a few at a time,
and share the window of what is under way in the pool, so that memory does not grow
with their number.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_TURNS = 8
"""So many passes are under way at a time; an image that hangs must not hold up all others."""


MOST_JOBS = 1 << 10
"""Threads beyond this are a slip: each has two blocks under way."""


def default_jobs() -> int:
    """Give the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def start_abandonable(call: Callable[[], None], name: str) -> None:
    """Have `call` done in a thread of its own, which the end of the program does not wait for."""
    threading.Thread(target=call, name=name, daemon=True).start()


def _settle(future: Future[Any], call: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    # Whatever it is, it is for who waits.
    except BaseException as error:  # noqa: BLE001
        future.set_exception(error)


class Lane:
    """Keeps the order of what it is given, at most `depth` calls behind."""

    def __init__(self, threads: Executor, depth: int) -> None:
        self._threads = threads
        self._depth = depth
        self._behind: deque[Future[object]] = deque()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], object]]] = deque()
        self._running = False

    def do(self, call: Callable[[], object]) -> None:
        """Have `call` done after all before it; waits, and raises its error, if too far behind."""
        self._behind.append(self.submit(call))
        while self._behind and (self._behind[0].done() or len(self._behind) > self._depth):
            self._behind.popleft().result()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have `call` done after all before it, however many they are.

        Raises:
            RuntimeError: the workers are closed, or the program ends.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._running:
                self._threads.submit(self._run)
                self._running = True
            self._calls.append((future, call))
        return future

    def _run(self) -> None:
        while item := self._next():
            _settle(*item)

    def _next(self) -> tuple[Future[Any], Callable[[], object]] | None:
        with self._lock:
            self._running = bool(self._calls)
            return self._calls.popleft() if self._running else None

    def finish(self) -> None:
        """Wait until all is done; raise the first error."""
        while self._behind:
            self._behind.popleft().result()

    def drop(self) -> None:
        """Cancel what waits."""
        with self._lock:
            dropped = list(self._calls)
            self._calls.clear()
        for future, _ in dropped:
            future.cancel()


class InOrder(Generic[T]):
    """The results of calls in their order, while the next ones are under way in the pool."""

    def __init__(self, workers: "Workers", calls: Iterable[Callable[[], T]]) -> None:
        self._workers = workers
        self._calls = iter(calls)
        self._running: deque[Future[T]] = deque()

    @property
    def under_way(self) -> int:
        """How many results were begun and not taken."""
        return len(self._running)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while len(self._running) < self._workers.window and (call := next(self._calls, None)):
            self._running.append(self._workers.submit(call))
        return self.take()

    def take(self) -> T:
        """Give the next result of those under way, and begin no other.

        Raises:
            StopIteration: there is none.
        """
        if not self._running:
            raise StopIteration
        return self._running.popleft().result()


class Workers:
    """The threads of one mount: a pool of `jobs`, and lanes. Threads start when first needed."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool = ThreadPoolExecutor(jobs, "block")
        # Lanes wait for each other and for the pool, so none may have to wait for a thread.
        self._threads = ThreadPoolExecutor(sys.maxsize, "lane")
        # Bundles come and go, and their lanes with them.
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], bool]] = deque()
        self._turns = 0

    @property
    def window(self) -> int:
        """How many calls may be under way in the pool for each of those whose turn it is."""
        return max(1, (2 * self.jobs + 2) // max(1, self._turns))

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)

    def take_turns(self, stint: Callable[[], bool]) -> None:
        """Have `stint` called, again and again until it gives False; the others have turns between.

        It is to give back soon, with nothing under way, when the workers are `crowded`.

        Raises:
            RuntimeError: the workers are closed, or the program ends.
        """
        with self._lock:
            if self._turns < _TURNS:
                self._threads.submit(self._take_turn)
                self._turns += 1
            self._waiting.append(stint)

    def _take_turn(self) -> None:
        while stint := self._next_stint():
            if stint():
                with self._lock:
                    self._waiting.append(stint)

    def _next_stint(self) -> Callable[[], bool] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._turns -= 1
            return None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have a pool thread do `work`; first come, first served."""
        return self._pool.submit(work)

    def in_order(self, calls: Iterable[Callable[[], T]]) -> InOrder[T]:
        """Give the results of `calls` in their order, a window of them under way meanwhile.

        The iterator may be left for any time and taken up again.
        """
        return InOrder(self, calls)

    def lane(self, depth: int) -> Lane:
        """Give a lane."""
        lane = Lane(self._threads, depth)
        with self._lock:
            self._lanes.add(lane)
        return lane

    def close(self) -> None:
        """Let running work end, drop what waits. Lanes end first: they wait for the pool."""
        for executor in (self._threads, self._pool):
            executor.shutdown(wait=False, cancel_futures=True)
        for lane in list(self._lanes):
            lane.drop()
        self._waiting.clear()
        for executor in (self._threads, self._pool):
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
