"""The threads of one mount, and who may use how many of them.

`Workers` has two kinds. The *pool*, `jobs` threads, makes blocks: deflating,
checksums, all in code that releases the GIL. Nothing in it waits for a read: what a
block is made of is read on a `Lane`, and the pool takes over when it is there. A lane
does what must stay in order, or a few calls at a time; without anything to do it has
no thread. Neither knows an event loop; whoever waits, waits on a
`concurrent.futures.Future`.

All bundles of a mount share the pool. Their passes take *turns*, a few at a time,
and share the window of what is under way, so that memory does not grow with their
number. A pass whose storage does not answer gives its turn back until it does. Those
who make blocks again share a `Room` for the same reason.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

from bundlefs.base.futures import failure, refuse
from bundlefs.base.memory import blocks_in_memory
from bundlefs.base.threads import PATIENCE_SECONDS, NoMoreWorkError, Threads, settle

T = TypeVar("T")
R = TypeVar("R")

_TURNS = 8
"""So many passes are under way at a time."""


MOST_JOBS = 1 << 10
"""Threads beyond this are a slip: each has two blocks under way."""


def default_jobs() -> int:
    """Give the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Lane:
    """Keeps the order of what it is given: `width` calls at a time, `depth` behind at most."""

    def __init__(self, threads: Threads, depth: int, width: int = 1) -> None:
        self._threads = threads
        self._depth = depth
        self._width = width
        self._behind: deque[Future[object]] = deque()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], object]]] = deque()
        self._running = 0

    def do(self, call: Callable[[], object]) -> None:
        """Have `call` done after all before it; waits, and raises its error, if too far behind."""
        self._behind.append(self.submit(call))
        while self._behind and (self._behind[0].done() or len(self._behind) > self._depth):
            self._behind.popleft().result()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have `call` begun after all before it, however many they are.

        Raises:
            NoMoreWorkError: the workers are closed, or the program ends.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._running < self._width:
                self._threads.submit(self._run)
                self._running += 1
            self._calls.append((future, call))
        return future

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


class Room:
    """So many blocks are in memory at a time. A read that storage does not answer holds none."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._filled: set[object] = set()
        self._reading: dict[object, float] = {}
        self._closed = False

    def take(self) -> object:
        """Wait for the place of a block; return what stands for it.

        Raises:
            NoMoreWorkError: the workers are closed.
        """
        place = object()
        with self._changed:
            while (seconds := self._full_for()) != 0.0 and not self._closed:
                self._changed.wait(seconds)
            if self._closed:
                raise NoMoreWorkError("no more work is taken: the workers have been closed")
            self._reading[place] = time.monotonic()
        return place

    def _full_for(self) -> float | None:
        """Return for how long there is no room: 0 if there is, None if time alone cannot tell."""
        now = time.monotonic()
        left = [since + PATIENCE_SECONDS - now for since in self._reading.values()]
        young = [seconds for seconds in left if seconds > 0]
        if len(self._filled) + len(young) < self.size:
            return 0.0
        return min(young, default=None)

    def fill(self, place: object) -> None:
        """Take note that the block is there."""
        with self._changed:
            self._reading.pop(place, None)
            self._filled.add(place)

    def leave(self, place: object) -> None:
        """Give a place back."""
        with self._changed:
            self._reading.pop(place, None)
            self._filled.discard(place)
            self._changed.notify()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _After(Future[T]):
    """What is made of the result of another future; to cancel it is to cancel that one."""

    def __init__(self, first: Future[Any]) -> None:
        super().__init__()
        self.first: Future[Any] | None = first

    def cancel(self) -> bool:
        first = self.first
        return first is not None and first.cancel() and super().cancel()


Begin = Callable[[], Future[T]]
"""Begins something in the background."""


class InOrder(Generic[T]):
    """The results of what is begun, in order, while the next ones are under way."""

    def __init__(self, workers: "Workers", begins: Iterable[Begin[T]]) -> None:
        self._workers = workers
        self._begins = iter(begins)
        self._again: deque[Begin[T]] = deque()
        self._running: deque[tuple[Begin[T], Future[T]]] = deque()

    @property
    def under_way(self) -> int:
        """How many results were begun and not taken."""
        return len(self._running)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self.begin()
        return self.take()

    def begin(self) -> None:
        """Begin as many as may be under way."""
        while len(self._running) < self._workers.window and (begin := self._next()):
            self._running.append((begin, begin()))

    def _next(self) -> Begin[T] | None:
        return self._again.popleft() if self._again else next(self._begins, None)

    def ready(self, seconds: float) -> bool:
        """Wait up to `seconds` for the next result; tell whether it can be taken at once."""
        return not self._running or bool(wait_for([self._running[0][1]], seconds).done)

    def take(self) -> T:
        """Give the next result of those under way, and begin no other.

        Raises:
            StopIteration: there is none.
        """
        if not self._running:
            raise StopIteration
        return self._running.popleft()[1].result()

    def hold_back(self) -> Future[T]:
        """Call off what can be behind the next result, to be begun anew; return that one.

        There must be one under way.
        """
        while len(self._running) > 1 and self._called_off():
            self._again.appendleft(self._running.pop()[0])
        return self._running[0][1]

    def _called_off(self) -> bool:
        last = self._running[-1][1]
        # Any other future would be cancelled alone, and what it was begun with would still come.
        return isinstance(last, _After) and last.cancel()


Stint = Callable[[], "bool | Future[Any]"]
"""Works until others have their turn; tells whether there is more, or what to wait for first."""


class Workers:
    """The threads of one mount: a pool of `jobs`, and lanes. Threads start when first needed."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.ended = True
        # More than keep the processors busy would wait for them, and take memory.
        self._most = min(2 * jobs + 2, 2 * default_jobs() + 6, blocks_in_memory())
        self.room = Room(max(1, self._most // 2))
        self._pool = Threads(jobs, "block")
        # Lanes wait for each other and for the pool, so none may have to wait for a thread.
        self._threads = Threads(sys.maxsize, "lane")
        # Bundles come and go, and their lanes with them.
        self._lanes: WeakSet[Lane] = WeakSet()
        self._lock = threading.Lock()
        self._waiting: deque[Stint] = deque()
        self._turns = 0

    @property
    def window(self) -> int:
        """How much may be under way for each of those whose turn it is."""
        return max(1, self._most // max(1, self._turns))

    @property
    def ahead(self) -> int:
        """How many blocks are worth making at a time for who reads behind the frontier."""
        return min(self.jobs, self.room.size)

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)

    def take_turns(self, stint: Stint) -> None:
        """Have `stint` called, again and again until it gives False; the others have turns between.

        It is to give back soon, with nothing under way, when the workers are `crowded`. If it
        gives a future, it is called again when that is done, and others have its turn meanwhile.

        Raises:
            NoMoreWorkError: the workers are closed, or the program ends.
        """
        with self._lock:
            if self._turns < _TURNS:
                self._threads.submit(self._take_turn)
                self._turns += 1
            self._waiting.append(stint)

    def _take_turn(self) -> None:
        while stint := self._next_stint():
            more = stint()
            if isinstance(more, Future):
                more.add_done_callback(partial(self._take_turns_again, stint))
            elif more:
                with self._lock:
                    self._waiting.append(stint)

    def _take_turns_again(self, stint: Stint, _: Future[Any]) -> None:
        # Closed meanwhile: who waits for the pass has been told.
        with suppress(NoMoreWorkError):
            self.take_turns(stint)

    def _next_stint(self) -> Stint | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._turns -= 1
            return None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have a pool thread do `work`, which must not wait for storage."""
        return self._pool.submit(work)

    def after(self, first: Future[R], work: Callable[[R], T]) -> Future[T]:
        """Have a pool thread do `work` with the result of `first`, once that is there."""
        result: _After[T] = _After(first)
        first.add_done_callback(partial(self._go_on, result, work))
        return result

    def _go_on(self, result: _After[T], work: Callable[[R], T], first: Future[R]) -> None:
        # The result is not to keep alive what it was made of.
        result.first = None
        if first.cancelled():
            Future.cancel(result)
        elif error := failure(first):
            refuse(result, error)
        else:
            try:
                self._pool.submit(partial(settle, result, partial(work, first.result())))
            except NoMoreWorkError as error:
                refuse(result, error)

    def in_order(self, calls: Iterable[Callable[[], T]]) -> InOrder[T]:
        """Give the results of `calls` in their order, a window of them under way in the pool.

        The iterator may be left for any time and taken up again.
        """
        return InOrder(self, (partial(self.submit, call) for call in calls))

    def begun_in_order(self, begins: Iterable[Begin[T]]) -> InOrder[T]:
        """Give the results of what each of `begins` begins in order, likewise."""
        return InOrder(self, begins)

    def lane(self, depth: int, width: int = 1) -> Lane:
        """Give a lane."""
        lane = Lane(self._threads, depth, width)
        with self._lock:
            self._lanes.add(lane)
        return lane

    def close(self) -> bool:
        """Let running work end, drop what waits; return whether all has ended.

        What waits for storage that does not answer is abandoned.
        """
        for threads in (self._threads, self._pool):
            threads.shut()
        self.room.close()
        for lane in list(self._lanes):
            lane.drop()
        self._waiting.clear()
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
