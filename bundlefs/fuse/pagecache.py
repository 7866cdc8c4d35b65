"""Parts that were just made go into the kernel's page cache, so that nobody has them made again.

A sink that lists first waits for the whole pass, and what is made meanwhile does not all stay in
memory here. The page cache holds it for as long as there is room: it is no memory of this process,
and the kernel takes it back when it is needed. To open a file keeps what is in it, and no size and
no time ever changes, so whoever reads then does not even ask us.

Two things could hang for good, so that not even SIGKILL ended them [linux: fs/fuse/dev.c]:

- A page is locked while a read of it waits for us. To store it then is to wait for ourselves: so
  nothing is stored in a file that is open, and an `open` waits while something is stored in it.
- The kernel takes no bytes for a file that it does not know, and to look one up by name is to ask
  ourselves: so another process does (`introduce`). Nobody can unmount at that moment: it does so
  only while somebody waits in the mount, who has it in use anyway, and is answered after that.

How much is given: half of what is available, for what nobody has read yet. So the first parts of a
bundle that is larger than that stay, and are not driven out by the last. If one that was given is
asked for all the same, the kernel has no room, and gets nothing more of this bundle.

Concurrency: one thread gives; `_lock` guards what waits for it, which files are open, and which one
it gives to. `_made` is called by who has a pass's turn, all else in the event loop's thread.
"""

import itertools
import logging
import os
import subprocess
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from bundlefs.base.futures import DONE
from bundlefs.base.memory import available_memory
from bundlefs.base.spans import Span
from bundlefs.base.threads import PATIENCE_SECONDS, Threads, asking_storage
from bundlefs.fuse.asking import fleeting
from bundlefs.fuse.inodes import FOLDER, Inode
from bundlefs.fuse.views import View
from bundlefs.fuse.waiting import until

log = logging.getLogger(__name__)

_SLICE = 1 << 20
"""Bytes that are given at a time: whole pages, or a page is not taken for complete."""
_TIMES = 2
"""What was touched once is the first to go when much is read: the image itself would drive it out
[linux: mm/swap.c, folio_mark_accessed]."""
_SHARE = 2
"""What is given is at most one in so many bytes of what is available."""
_AHEAD = 2
"""Parts that a pass may be ahead: they are in memory for so long [bundling/store.py]."""
_NAP_SECONDS = 0.002
_HOLD_SECONDS = 3.0
"""A pass is held up for so long at most, which is longer than a look at a file may take."""
_WAIT_SECONDS = 3600.0
"""What nobody has read for so long does not count any more: nobody is going to."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the parts of a view are."""

    number: int
    folder: Path
    view: "weakref.ref[View[Any]]"


@dataclass(frozen=True, slots=True)
class _Given:
    size: int
    when: float


class PageCache:
    """Gives parts to the kernel.

    Args:
        folder: where the mount is; None gives nothing.
        given: called with each file that the kernel has all of, and whose size it knows.
    """

    def __init__(self, folder: Path | None, given: Callable[[Inode], None]) -> None:
        self._folder = folder
        self._tell_given = given
        self._threads = Threads(1, "keep")
        self._lock = threading.Lock()
        self._pins = 0
        self._looking: Future[None] = DONE
        self._given: Future[None] = DONE
        self._open: Counter[Inode] = Counter()
        self._giving: tuple[Inode, Future[None]] | None = None
        self._unread: dict[Inode, _Given] = {}
        self._full: set[int] = set()
        self._waiting: list[tuple[_Place, object]] = []
        self._under_way: list[tuple[_Place, object]] = []
        self._patient = True
        self._views: weakref.WeakSet[View[Any]] = weakref.WeakSet()

    # What happens, in the event loop

    def watch(self, number: int, name: str, view: View[Any]) -> None:
        """Give parts of a view as they are made, from now on; its folder has this name."""
        if self._folder is None or view in self._views:
            return
        self._views.add(view)
        if parts := fleeting(view):
            place = _Place(number, self._folder / name, weakref.ref(view))
            for entry in parts.on_made(partial(self._made, place)):
                self._offer(place, entry)

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[None]:
        """Let files be looked up until the end of the `with`, for somebody who waits so long.

        It ends when what was made by then is given: the last part is made as the waiting ends.
        """
        with self._lock:
            self._pins += 1
        try:
            yield
        finally:
            # What has failed is logged, and no reason not to answer.
            with suppress(Exception), trio.move_on_after(_HOLD_SECONDS):
                await until(self._given, 0)
            with self._lock:
                self._pins -= 1
                looking = self._looking
            await until(looking, 0)

    def opening(self, inode: Inode) -> Future[None]:
        """Note that a file is being opened; the future is done once nothing is stored in it."""
        with self._lock:
            self._open[inode] += 1
            giving = self._giving
            return giving[1] if giving and giving[0] == inode else DONE

    def closed(self, inode: Inode) -> None:
        """Note that it is closed, or could not be opened."""
        with self._lock:
            self._open[inode] -= 1
            if not self._open[inode]:
                del self._open[inode]
            self._unread.pop(inode, None)

    def asked(self, inode: Inode) -> None:
        """Note that bytes of a file are asked for."""
        if inode in self._unread:
            log.debug("the kernel has no room for parts: it is given no more of this bundle")
            self._full.add(inode.view)

    def stop(self) -> None:
        """Give nothing more; nothing is under way then, unless the kernel does not come back."""
        self._threads.shut()
        self._threads.join()

    # Giving, in a thread

    def _offer(self, place: _Place, entry: object) -> None:
        with self._lock:
            self._waiting.append((place, entry))
            if len(self._waiting) == 1:
                # The mount may be at its end, or the system out of threads.
                try:
                    self._given = self._threads.submit(self._give_all)
                except RuntimeError:
                    self._waiting.clear()

    def _made(self, place: _Place, entry: object) -> None:
        """Have a part given, and hold up the pass while it is too far ahead of that.

        What is too long in coming is not waited for again.
        """
        self._offer(place, entry)
        deadline = time.monotonic() + _HOLD_SECONDS
        while self._behind > _AHEAD and self._patient and not self._threads.shutting.done():
            self._patient = time.monotonic() < deadline
            time.sleep(_NAP_SECONDS)

    @property
    def _behind(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def _give_all(self) -> None:
        """Give the parts that wait."""
        with self._lock:
            self._under_way, self._waiting = self._waiting, []
        try:
            found = [(place, view, one) for place, one in self._under_way if (view := place.view())]
            self._introduce([place.folder / view.name(entry) for place, view, entry in found])
            for place, view, entry in found:
                self._keep(place.number, view, entry)
                self._under_way = self._under_way[1:]
        except Exception:
            log.exception("parts are not kept by the kernel")
        finally:
            self._under_way = []

    def _introduce(self, paths: Sequence[Path]) -> None:
        with self._lock:
            if not self._pins:
                return
            looking = self._looking = Future()
        try:
            introduce(paths)
        finally:
            looking.set_result(None)

    def _keep(self, number: int, view: View[Any], entry: object) -> None:
        parts = fleeting(view)
        pieces = parts.bytes_of(entry) if parts else None
        if parts is None or pieces is None:
            return
        inode, size = Inode(number, FOLDER).entry(view.key(entry)), sum(map(len, pieces))
        if inode in self._unread or number in self._full or not self._has_room(size):
            return
        if self._give(inode, pieces):
            parts.note_given(size)
            self._tell_given(inode)

    def _has_room(self, size: int) -> bool:
        available = available_memory()
        now = time.monotonic()
        with self._lock:
            for inode, given in list(self._unread.items()):
                if now - given.when > _WAIT_SECONDS:
                    del self._unread[inode]
            size += sum(given.size for given in self._unread.values())
        return available is not None and size <= available // _SHARE

    def _give(self, inode: Inode, pieces: Sequence[memoryview]) -> bool:
        """Store all of a file unless it is open; return whether that was done."""
        done: Future[None] = Future()
        with self._lock:
            if self._open[inode]:
                return False
            self._giving = inode, done
        try:
            for offset, data in itertools.chain.from_iterable(
                slices(pieces, _SLICE) for _ in range(_TIMES)
            ):
                with asking_storage():
                    pyfuse3.notify_store(inode.number, offset, data)
        except OSError as error:
            # It knows no such file, or not any more; or the mount has ended.
            log.debug("%s: not kept: %s", inode, error)
            return False
        else:
            with self._lock:
                self._unread[inode] = _Given(sum(map(len, pieces)), time.monotonic())
            return True
        finally:
            with self._lock:
                self._giving = None
            done.set_result(None)


def slices(pieces: Sequence[memoryview], length: int) -> Iterator[tuple[int, bytes]]:
    """Yield a file anew: each offset that is a multiple of `length`, and the bytes up to the next.

    The last comes first: from then on the kernel knows the whole size, and sees no other again.
    """
    stops = list(itertools.accumulate(map(len, pieces)))
    whole = [Span(stop - len(piece), stop) for stop, piece in zip(stops, pieces, strict=True)]
    for start in reversed(range(0, stops[-1], length)):
        wanted = Span(start, start + length)
        inside = [
            (piece, wanted.clip(span).shift(-span.start))
            for piece, span in zip(pieces, whole, strict=True)
        ]
        yield start, b"".join(piece[span.start : span.stop] for piece, span in inside)


def introduce(paths: Sequence[Path]) -> None:
    """Have another process look files up, so that the kernel knows them; give up if it hangs."""
    with suppress(OSError, subprocess.TimeoutExpired):
        looking = subprocess.Popen(  # noqa: S603  # names are arguments, no text of the script
            ["/bin/sh", "-c", 'for name; do [ -e "$name" ]; done', "sh", *map(os.fspath, paths)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with asking_storage():
                looking.wait(2 * PATIENCE_SECONDS)
        finally:
            looking.kill()
