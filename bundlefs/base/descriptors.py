"""Descriptors of files that are read again and again: the last few of them stay open.

Opening a file costs a request if it is on a server, and a client reads ahead in a file that stays
open. Only a few stay open, since a client of a server holds buffers for each.

Concurrency: any thread may borrow. Nobody closes a descriptor that is borrowed, whatever happens
to the file's name.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MOST = 16


@dataclass(slots=True)
class _Opened:
    """A descriptor, how many borrow it, and whether it is closed when the last one returns it."""

    descriptor: int
    borrowers: int = 0
    dropped: bool = False


class Descriptors:
    """Open files by path; `most` is how many stay open while nobody reads them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._opened: OrderedDict[Path, _Opened] = OrderedDict()

    @contextmanager
    def borrow(self, path: Path) -> Iterator[int]:
        """Lend the descriptor of a file for the length of a `with`.

        Raises:
            OSError: the file cannot be opened.
        """
        opened = self._taken(path) or self._newly_opened(path)
        try:
            yield opened.descriptor
        finally:
            with self._lock:
                opened.borrowers -= 1
                self._trim(opened)

    def drop(self, path: Path) -> None:
        """Forget a descriptor: the next borrower gets the file that has the name by then."""
        with self._lock:
            opened = self._opened.pop(path, None)
            if opened:
                opened.dropped = True
                self._trim(opened)

    def close(self) -> None:
        """Forget them all."""
        for path in list(self._opened):
            self.drop(path)

    def _taken(self, path: Path) -> _Opened | None:
        with self._lock:
            opened = self._opened.get(path)
            if opened:
                opened.borrowers += 1
                self._opened.move_to_end(path)
            return opened

    def _newly_opened(self, path: Path) -> _Opened:
        # Not under the lock: a server may be slow. A FIFO must not make us wait for a writer.
        new = _Opened(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), borrowers=1)
        with self._lock:
            if path in self._opened:  # another thread was faster: ours goes after its use
                new.dropped = True
            else:
                self._opened[path] = new
        return new

    def _trim(self, returned: _Opened) -> None:
        if returned.dropped and not returned.borrowers:
            _close(returned.descriptor)
        idle = [path for path, opened in self._opened.items() if not opened.borrowers]
        for path in idle[: max(0, len(self._opened) - self._most)]:
            _close(self._opened.pop(path).descriptor)


def _close(descriptor: int) -> None:
    # Some servers report a failed transfer only now [rclone mount]; each read had its own error.
    with suppress(OSError):
        os.close(descriptor)
