"""How long the storage of an image has not answered: for the status, the log, and those who wait.

Concurrency: any number of threads read; `_since` is changed by single operations of a dict. One
watching thread serves all images, and sleeps while nothing is read.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from bundlefs.base.threads import PATIENCE_SECONDS, asking_storage, start_abandonable

log = logging.getLogger(__name__)

_TELL_SECONDS = 5.0
_LOOK_SECONDS = 1.0


class Storage:
    """The storage that an image is on; `of` returns the same one to all who read that image."""

    def __init__(self, path: Path) -> None:
        self._name = f"image {path}"
        self._since: dict[object, float] = {}
        self._told: float | None = None

    @staticmethod
    def of(path: Path) -> "Storage":
        """Return the storage of the image at a path: one for as long as somebody holds it."""
        with _lock:
            return _known.setdefault(path, Storage(path))

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Count a read as under way for the length of a `with`."""
        read = object()
        self._since[read] = time.monotonic()
        _watch.add(self)
        try:
            with asking_storage():
                yield
        finally:
            del self._since[read]

    @property
    def _oldest(self) -> float | None:
        return min(tuple(self._since.values()), default=None)

    @property
    def silent_seconds(self) -> float:
        """For how long the oldest read has waited; 0 for as long as any storage may take."""
        oldest = self._oldest
        silent = 0.0 if oldest is None else time.monotonic() - oldest
        return silent if silent > PATIENCE_SECONDS else 0.0

    @property
    def idle(self) -> bool:
        """Whether no read is under way, and the log is up to date."""
        return not self._since and self._told is None

    def look(self) -> None:
        """Log a silence once, and its end."""
        oldest = self._oldest
        if self._told is not None and oldest != self._told:
            seconds = time.monotonic() - self._told
            log.warning("%s: its storage answers again, after %.0f s", self._name, seconds)
            self._told = None
        elif self._told is None and self.silent_seconds > _TELL_SECONDS:
            self._told = oldest
            log.warning(
                "%s: its storage has not answered for %.0f s; what is asked of it waits, and goes"
                " on when it does",
                self._name,
                self.silent_seconds,
            )


_lock = threading.Lock()
_known: WeakValueDictionary[Path, Storage] = WeakValueDictionary()


class _Watch:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[Storage] = set()
        self._thread: threading.Thread | None = None

    def add(self, storage: Storage) -> None:
        with self._changed:
            if storage in self._busy:
                return
            self._busy.add(storage)
            self._changed.notify()
            # A fork leaves the thread behind.
            if self._thread is None or not self._thread.is_alive():
                self._thread = start_abandonable(self._run, "watch")

    def _run(self) -> None:
        while True:
            with self._changed:
                # Under the lock: a read that begins later adds its storage anew.
                self._busy = {storage for storage in self._busy if not storage.idle}
                while not self._busy:
                    self._changed.wait()
                busy = list(self._busy)
            time.sleep(_LOOK_SECONDS)
            for storage in busy:
                storage.look()


_watch = _Watch()
