"""The way of the parts: asked for, made, under way, sent. It knows no tool and no mount.

Parts are asked for ahead of what is sent, so that neither waits for the other, but no further than
memory reaches: what is sent has been made just now, and is not made again. Before the first one has
arrived, little is asked for: what may be wrong with a bucket shows then.

Concurrency: any thread; `_changed` is held for a moment. The main thread alone is in `wait`.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_FAILURES = 3
"""So many in a row, and none that went well: it is not the part."""
_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """A file that is whole."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Stand:
    """How much is there, in bytes; `ended` if nothing more is made."""

    made: int
    sent: int
    ended: bool


class Course:
    """What becomes of each part.

    Args:
        ahead: how many may be made and not sent.
        at_first: the same, until the first one has arrived.
        least: how many are to be taken together, where as many come.
        let_go: called for each part that has arrived, or has not and is not tried again.
    """

    def __init__(
        self,
        ahead: int,
        at_first: int,
        least: int = 1,
        let_go: Callable[[Part], None] = lambda _: None,
    ) -> None:
        self._ahead = ahead
        self._at_first = at_first
        self._least = least
        self._let_go = let_go
        self._changed = threading.Condition()
        self._ready: deque[Part] = deque()
        self._asked = 0
        self._made = 0
        self._end: int | None = None
        self._under_way = 0
        self._arrived = 0
        self._failed = 0
        self._failures = 0
        self._error: BaseException | None = None
        self._stopped = False
        self._bytes_made = 0
        self._bytes_sent = 0

    # Who makes them

    def next(self) -> int | None:
        """Return the number of the part to be asked for, once there is room; None: no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._room)
            if self._over:
                return None
            self._asked += 1
            return self._asked - 1

    @property
    def _over(self) -> bool:
        return self._stopped or (self._end is not None and self._asked >= self._end)

    @property
    def _room(self) -> bool:
        most = self._ahead if self._arrived else self._at_first
        return self._asked - self._arrived - self._failed < most

    def made(self, part: Part) -> None:
        """Have a part sent."""
        with self._changed:
            self._made += 1
            self._bytes_made += part.size
            self._ready.append(part)
            self._changed.notify_all()

    def passed(self, size: int) -> None:
        """Note a part that was asked for, and that an earlier run has sent."""
        with self._changed:
            self._made += 1
            self._arrived += 1
            self._bytes_made += size
            self._bytes_sent += size
            self._changed.notify_all()

    def end(self, count: int) -> None:
        """Tell that there are no more than `count` parts."""
        with self._changed:
            self._end = count if self._end is None else min(self._end, count)
            self._changed.notify_all()

    def stop(self, error: BaseException | None = None) -> None:
        """Let nobody wait any more; `error` is what `wait` raises."""
        with self._changed:
            self._error = self._error or error
            self._stopped = True
            self._changed.notify_all()

    # Who sends them

    def take(self) -> list[Part]:
        """Return the parts to be sent together, once there are enough; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._complete or self._worth_it)
            if self._stopped:
                return []
            parts = [self._ready.popleft() for _ in range(self._share)]
            self._under_way += len(parts)
            return parts

    @property
    def _share(self) -> int:
        return min(len(self._ready), 1 if self._least == 1 else len(self._ready))

    @property
    def _complete(self) -> bool:
        return self._end is not None and self._made >= self._end

    @property
    def _worth_it(self) -> bool:
        if not self._ready:
            return False
        # No more come before something has arrived.
        settled = self._made >= self._asked and not self._room
        early = not self._arrived and settled
        return len(self._ready) >= self._least or early or not (self._under_way or self._coming)

    @property
    def _coming(self) -> bool:
        return bool(self._arrived) and (self._made < self._asked or self._room)

    def sent(self, parts: list[Part]) -> None:
        """Tell that parts have arrived."""
        for part in parts:
            self._let_go(part)
        with self._changed:
            self._under_way -= len(parts)
            self._arrived += len(parts)
            self._failures = 0
            self._bytes_sent += sum(part.size for part in parts)
            self._changed.notify_all()

    def failed(self, parts: list[Part], error: Exception) -> None:
        """Tell that parts have not arrived: the others are sent, if that is not hopeless."""
        for part in parts:
            self._let_go(part)
        with self._changed:
            self._under_way -= len(parts)
            self._failed += len(parts)
            self._failures += 1
            self._error = self._error or error
            self._stopped = self._stopped or self._failures >= _FAILURES
            self._changed.notify_all()

    # Who waits

    @property
    def over(self) -> bool:
        """Whether nothing happens any more."""
        with self._changed:
            return self._stopped

    @property
    def stand(self) -> Stand:
        """How far it is."""
        with self._changed:
            return Stand(self._bytes_made, self._bytes_sent, self._complete)

    def wait(self, tick: Callable[[Stand], None]) -> None:
        """Wait until all is sent, calling `tick` meanwhile.

        Raises:
            BaseException: why a part could not be made or sent.
        """
        while not self._wait_for_a_while():
            tick(self.stand)
        if self._error is not None:
            raise self._error

    def _wait_for_a_while(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped or self._all_sent, _TICK_SECONDS)

    @property
    def _all_sent(self) -> bool:
        return self._complete and not self._ready and not self._under_way
