"""Calls that must stay in order, or be few at a time.

Concurrency: any thread may `submit`; `do` and `finish` are for one thread at a time.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from bundlefs.base.futures import refuse
from bundlefs.base.threads import NoMoreWorkError, Threads, settle

T = TypeVar("T")

BEHIND = 8
"""So many pieces may wait where a digest or a copy follows what is made."""


class Lane:
    """Keeps the order of what it is given; without anything to do it has no thread.

    Args:
        threads: where the calls run.
        depth: how many calls `do` may be ahead of what is done.
        width: how many calls run at a time.
    """

    def __init__(self, threads: Threads, depth: int, width: int = 1) -> None:
        self._threads = threads
        self._depth = depth
        self._width = width
        self._behind: deque[Future[object]] = deque()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], object]]] = deque()
        self._running = 0

    def do(self, call: Callable[[], object]) -> None:
        """Do `call` after all before it; wait, or raise an error, if that is too far ahead."""
        self._behind.append(self.submit(call))
        while self._behind and (self._behind[0].done() or len(self._behind) > self._depth):
            self._behind.popleft().result()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Begin `call` after all before it, however many they are.

        Raises:
            NoMoreWorkError: the workers are closed, or the program ends.
        """
        future: Future[T] = Future()
        job: Future[None] | None = None
        with self._lock:
            if self._running < self._width:
                job = self._threads.submit(self._run)
                self._running += 1
            self._calls.append((future, call))
        if job:
            job.add_done_callback(self._tell_if_dropped)
        return future

    def _tell_if_dropped(self, job: Future[None]) -> None:
        """Settle the calls that no thread is going to do: somebody may wait for them."""
        if not job.cancelled():
            return
        with self._lock:
            self._running -= 1
            dropped = list(self._calls) if not self._running else []
            if dropped:
                self._calls.clear()
        for future, _ in dropped:
            refuse(future, NoMoreWorkError("no more work is taken: the threads have been closed"))

    def _run(self) -> None:
        while item := self._next():
            settle(*item)
            # It may hold a block.
            del item

    def _next(self) -> tuple[Future[Any], Callable[[], object]] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._running -= 1
            return None

    def finish(self) -> None:
        """Wait until all calls are done; raise the first error."""
        while self._behind:
            self._behind.popleft().result()

    def drop(self) -> None:
        """Cancel the calls that wait."""
        with self._lock:
            dropped = list(self._calls)
            self._calls.clear()
        for future, _ in dropped:
            future.cancel()
