"""How many blocks may be in memory for those who make blocks again.

Concurrency: any thread; one condition.
"""

import threading
import time

from bundlefs.base.threads import PATIENCE_SECONDS, NoMoreWorkError


class Room:
    """Places for `size` blocks. A read that storage does not answer holds none."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._filled: set[object] = set()
        self._reading: dict[object, float] = {}
        self._closed = False

    def take(self) -> object:
        """Wait for a place for a block; return what stands for it.

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
        """Return for how long there is no room: 0 if there is some, None if that is not known."""
        now = time.monotonic()
        left = [since + PATIENCE_SECONDS - now for since in self._reading.values()]
        young = [seconds for seconds in left if seconds > 0]
        if len(self._filled) + len(young) < self.size:
            return 0.0
        return min(young, default=None)

    def fill(self, place: object) -> None:
        """Take note that the block is in memory now."""
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
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
