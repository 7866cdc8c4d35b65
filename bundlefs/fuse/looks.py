"""Looking at files by name, some of which may lie on storage that does not answer.

Concurrency: `_lock` guards which looks are under way. A file is looked at by one thread at a time,
so that looking at one that hangs again and again takes no more threads. `look` waits for an answer,
but not long; it is called in a thread, never in the event loop's.
"""

import errno
import os
import stat
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bundlefs.base.threads import PATIENCE_SECONDS, settle, start_abandonable

Identity = tuple[int, ...]
"""What tells a file from another, or from what it was before; empty if that cannot be told."""

_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""The errors that say that there is no file, rather than that it cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its identity, where it is after all links, and the path that it is shown by.

    A device is where its name says: states are named after that, too.
    """

    identity: Identity
    place: Path
    path: Path


def identity(path: Path) -> Identity | None:
    """Return what tells a file from another: None if it is no image, empty if it cannot be told.

    An image that cannot be looked at has a folder all the same, which answers with the error: left
    out of the listing, it would seem to be gone.
    """
    try:
        found = path.stat()
    except OSError as error:
        return None if error.errno in _NONE else ()
    if stat.S_ISBLK(found.st_mode):
        return (found.st_rdev,)
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _found(path: Path) -> Found | None:
    now = identity(path)
    if now is None:
        return None
    place = path if len(now) == 1 else Path(os.path.realpath(path))
    return Found(now, place, place if path.is_symlink() else path)


def _unanswered(path: Path) -> Found:
    """Return what can be told of a file without asking the storage that it lies on."""
    try:
        place = Path(os.path.normpath(path.parent / path.readlink()))
    except OSError:
        place = path
    return Found((), place, place)


class Looks:
    """Looks at files, and waits for none of them for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Path, tuple[Future[Found | None], float]] = {}

    def look(self, path: Path) -> Found | None:
        """Return what a path leads to, or None if that is no image."""
        now = time.monotonic()
        with self._lock:
            under_way = self._under_way.get(path)
            looking, since = under_way or (Future(), now)
            self._under_way[path] = looking, since
        if under_way is None:
            start_abandonable(partial(self._look, path, looking), "look")
        try:
            return looking.result(max(0.0, since + PATIENCE_SECONDS - now))
        except NotInTimeError:
            return _unanswered(path)

    def identity(self, path: Path) -> Identity | None:
        """Return the identity of a file: None if it is no image, nothing if it cannot be told."""
        found = self.look(path)
        return found.identity if found else None

    def _look(self, path: Path, looking: "Future[Found | None]") -> None:
        settle(looking, partial(_found, path))
        with self._lock:
            self._under_way.pop(path, None)
