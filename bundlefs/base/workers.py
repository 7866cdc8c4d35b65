"""The threads of one mount, and who may use how many of them.

`Workers` has two kinds. The *pool*, `jobs` threads, makes blocks: deflating and checksums, all in
code that releases the GIL. Nothing in it waits for a read: what a block is made of is read on a
`Lane`, and the pool takes over when it is there. A lane does what must stay in order, or a few
calls at a time. Neither knows an event loop: whoever waits, waits for a
`concurrent.futures.Future`.

All bundles of a mount share the pool. Their passes take *turns*, a few at a time, and share the
window of what is under way, so that memory does not grow with their number. A pass whose storage
does not answer gives its turn back until it does. Those who make blocks again share a `Room` for
the same reason.

Concurrency: any thread may use them.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakSet

from bundlefs.base.futures import failure, refuse
from bundlefs.base.lanes import BEHIND, Lane
from bundlefs.base.memory import blocks_in_memory
from bundlefs.base.ordered import After, Begin, InOrder
from bundlefs.base.room import Room
from bundlefs.base.threads import NoMoreWorkError, Threads, settle
from bundlefs.base.turns import Stint, Turns

T = TypeVar("T")
R = TypeVar("R")

MOST_JOBS = 1 << 10
"""More threads than this are a slip: each has two blocks under way."""


def default_jobs() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """The threads of one mount: a pool of `jobs`, and lanes. A thread starts when it is needed."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.ended = True
        # More blocks than keep the processors busy would only wait, and take memory.
        self._most = min(2 * jobs + 2, 2 * default_jobs() + 6, blocks_in_memory())
        self.room = Room(max(1, self._most // 2))
        self._pool = Threads(jobs, "block")
        # Lanes wait for each other and for the pool, so none may have to wait for a thread.
        self._threads = Threads(sys.maxsize, "lane")
        # Bundles come and go, and their lanes with them.
        self._lanes: WeakSet[Lane] = WeakSet()
        self._lock = threading.Lock()
        self._turns = Turns(self._threads)

    @property
    def shutting(self) -> Future[None]:
        """Done as soon as no more work is taken, since they are closed or the program ends."""
        return self._threads.shutting

    @property
    def window(self) -> int:
        """How many results may be under way for each of those whose turn it is."""
        return max(1, self._most // max(1, self._turns.taken))

    @property
    def ahead(self) -> int:
        """How many blocks are worth making at a time for a reader behind the frontier."""
        return min(self.jobs, self.room.size)

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._turns.crowded

    def take_turns(self, stint: Stint) -> None:
        """Call `stint` again and again until it returns False; others have turns in between.

        It must return soon, with nothing under way, when the workers are `crowded`. If it
        returns a future, it is called again when that is done, and others have its turn meanwhile.

        Raises:
            NoMoreWorkError: the workers are closed, or the program ends.
        """
        self._turns.take(stint)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Let a pool thread do `work`, which must not wait for storage."""
        return self._pool.submit(work)

    def after(self, first: Future[R], work: Callable[[R], T]) -> Future[T]:
        """Let a pool thread do `work` with the result of `first`, once that is there."""
        result: After[T] = After(first)
        first.add_done_callback(partial(self._go_on, result, work))
        return result

    def _go_on(self, result: After[T], work: Callable[[R], T], first: Future[R]) -> None:
        # The result must not keep alive what it was made of.
        result.first = None
        if first.cancelled():
            Future.cancel(result)
        elif error := failure(first):
            refuse(result, error)
        else:
            try:
                job = self._pool.submit(partial(settle, result, partial(work, first.result())))
            except NoMoreWorkError as error:
                refuse(result, error)
            else:
                job.add_done_callback(partial(_tell_if_dropped, result))

    def in_order(self, calls: Iterable[Callable[[], T]]) -> InOrder[T]:
        """Return the results of `calls` in their order, a window of them under way in the pool.

        The iterator may be left for any time and taken up again.
        """
        return self.begun_in_order(partial(self.submit, call) for call in calls)

    def begun_in_order(self, begins: Iterable[Begin[T]]) -> InOrder[T]:
        """Return the results of what each of `begins` begins, in their order, likewise."""
        return InOrder(begins, lambda: self.window)

    def lane(self, depth: int = BEHIND, width: int = 1) -> Lane:
        """Return a new lane."""
        lane = Lane(self._threads, depth, width)
        with self._lock:
            self._lanes.add(lane)
        return lane

    def close(self) -> bool:
        """Let running work end and drop waiting work; return whether all threads have ended.

        A thread that waits for storage that does not answer is abandoned.
        """
        for threads in (self._threads, self._pool):
            threads.shut()
        self.room.close()
        for lane in list(self._lanes):
            lane.drop()
        self._turns.drop()
        # Lanes end first: they wait for the pool.
        self.ended = self._threads.join() & self._pool.join()
        return self.ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _tell_if_dropped(result: Future[T], job: Future[object]) -> None:
    """Settle what a job was to settle, if it is never going to run: somebody may wait for it."""
    if job.cancelled():
        refuse(result, NoMoreWorkError("no more work is taken: the threads have been closed"))
