"""Results in the order in which they were asked for, made many at a time.

Concurrency: an `InOrder` is for one thread at a time; what it begins runs anywhere.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class After(Future[T]):
    """A future of what is made of another one's result; cancelling it cancels that one."""

    def __init__(self, first: Future[Any]) -> None:
        super().__init__()
        self.first: Future[Any] | None = first

    def cancel(self) -> bool:
        """Cancel both, unless the first is under way or done; return whether it is cancelled."""
        first = self.first
        return first is not None and first.cancel() and super().cancel()


Begin = Callable[[], Future[T]]
"""Begins something in the background."""


class InOrder(Generic[T]):
    """The results of what is begun, in order, while the next ones are under way.

    Args:
        begins: each begins the making of a result.
        window: tells how many results may be under way now.
    """

    def __init__(self, begins: Iterable[Begin[T]], window: Callable[[], int]) -> None:
        self._window = window
        self._begins = iter(begins)
        self._again: deque[Begin[T]] = deque()
        self._running: deque[tuple[Begin[T], Future[T]]] = deque()

    @property
    def under_way(self) -> int:
        """How many results have been begun and not taken."""
        return len(self._running)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self.begin()
        return self.take()

    def begin(self) -> None:
        """Begin as many as may be under way."""
        while len(self._running) < self._window() and (begin := self._next()):
            self._running.append((begin, begin()))

    def _next(self) -> Begin[T] | None:
        return self._again.popleft() if self._again else next(self._begins, None)

    def ready(self, seconds: float) -> bool:
        """Wait up to `seconds` for the next result; return whether it can be taken at once."""
        return not self._running or bool(wait_for([self._running[0][1]], seconds).done)

    def take(self) -> T:
        """Return the next result of those under way, and begin no other.

        Raises:
            StopIteration: there is none.
        """
        if not self._running:
            raise StopIteration
        return self._running.popleft()[1].result()

    def hold_back(self) -> Future[T]:
        """Return the next result, and call off what can be behind it, to begin it anew later.

        One must be under way.
        """
        while len(self._running) > 1 and self._called_off():
            self._again.appendleft(self._running.pop()[0])
        return self._running[0][1]

    def _called_off(self) -> bool:
        last = self._running[-1][1]
        # Any other future would be cancelled alone, while its work goes on.
        return isinstance(last, After) and last.cancel()
