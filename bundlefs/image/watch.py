"""Whether an image is still what it was: compared at once, or in a thread that nobody waits for.

Concurrency: any thread may ask. A comparison can hang as long as the image's storage does, so at
most one is under way in a thread; `_lock` guards which one.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from bundlefs.base.errors import ImageChangedError
from bundlefs.base.threads import start_abandonable
from bundlefs.image.source import Source

_GLANCE_SECONDS = 1.0


class Watch:
    """Compares an image with what it was on opening; `fail` is told of any difference first."""

    def __init__(self, image: Source, fail: Callable[[BaseException], None]) -> None:
        self._image = image
        self._fail = fail
        self._lock = threading.Lock()
        self._looking: Future[None] | None = None
        self._glanced = 0.0

    def check(self) -> None:
        """Compare now.

        Raises:
            ImageChangedError: the image is another.
            OSError: the file system cannot say; it is its own error.
        """
        try:
            self._image.require_unchanged()
        except ImageChangedError as error:
            self._fail(error)
            raise

    def look(self) -> Future[None]:
        """Compare in a thread; the future is done once `fail` was told of what was found."""
        with self._lock:
            if self._looking is None:
                self._looking = Future()
                start_abandonable(self._look, "look")
            return self._looking

    def _look(self) -> None:
        with suppress(Exception):
            self.check()
        with self._lock:
            looking, self._looking = self._looking, None
        if looking:
            looking.set_result(None)

    def glance(self) -> None:
        """Look unless the last glance was a moment ago; it may be called as often as one likes."""
        now = time.monotonic()
        if now - self._glanced >= _GLANCE_SECONDS:
            self._glanced = now
            self.look()
