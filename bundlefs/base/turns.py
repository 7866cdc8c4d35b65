"""Turns: of all who have much to do, a few work at a time.

Concurrency: any thread may ask for turns; one lock.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from bundlefs.base.threads import NoMoreWorkError, Threads

MOST_TURNS = 8
"""So many have their turn at a time."""

Stint = Callable[[], "bool | Future[Any]"]
"""Works for a while; returns whether there is more to do, or what to wait for first."""


class Turns:
    """Those who take turns, and those who wait for one."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._waiting: deque[Stint] = deque()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many have their turn now."""
        return self._taken

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)

    def take(self, stint: Stint) -> None:
        """Call `stint` again and again until it returns False; others have turns in between.

        It must return soon, with nothing under way, when there is a crowd. If it returns a
        future, it is called again when that is done, and others have its turn meanwhile.

        Raises:
            NoMoreWorkError: the threads are closed, or the program ends.
        """
        with self._lock:
            if self._taken < MOST_TURNS:
                self._threads.submit(self._run)
                self._taken += 1
            self._waiting.append(stint)

    def _run(self) -> None:
        while stint := self._next():
            more = stint()
            if isinstance(more, Future):
                more.add_done_callback(partial(self._take_again, stint))
            elif more:
                with self._lock:
                    self._waiting.append(stint)

    def _take_again(self, stint: Stint, _: Future[Any]) -> None:
        # Closed meanwhile: whoever waits for the result has been told.
        with suppress(NoMoreWorkError):
            self.take(stint)

    def _next(self) -> Stint | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._taken -= 1
            return None

    def drop(self) -> None:
        """Let nobody wait any more."""
        self._waiting.clear()
