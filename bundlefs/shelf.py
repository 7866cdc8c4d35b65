"""A folder of images: a view of its own for each, opened when somebody first looks into it.

What is wrong with one image stays with it: its folder answers with the error, and
its status tells. One that could not be opened is tried again once its file is
another. A bundle that has failed stays failed under its name until the mount ends:
a copy tool that goes on by name would mix its parts with those of another bundle,
and the kernel itself looks a name up again where the answer is ESTALE.

Concurrency: `_lock` guards the slots; each image is opened in a thread of its own.
"""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundlefs.errors import (
    BundlefsError,
    ClosedError,
    ImageChangedError,
    ImageError,
    UnknownNameError,
)
from bundlefs.views import View
from bundlefs.workers import start_abandonable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

Opener = Callable[[Path, int], View[Any]]
"""Opens an image for the view of a number."""


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What is told of an image that is not open: `phase` is `unopened`, `opening` or `failed`."""

    phase: str
    image: str
    error: str | None


@dataclass(frozen=True, slots=True)
class ShelfStatus:
    """Where all images together stand: sums over those that are open, and the status of each.

    `phase` is `indexing` if that of any image is, else `idle`: one that has failed tells so itself.
    """

    phase: str
    image: str
    image_size: int = 0
    image_bytes_read: int = 0
    tar_size: int = 0
    tar_bytes_done: int = 0
    parts_made: int = 0
    sealed_bytes: int = 0
    blocks_compressed: int = 0
    seconds: float = 0.0
    pass_seconds: float = 0.0
    error: str | None = None
    images: tuple[dict[str, Any], ...] = ()


_SUMS = (
    "image_size",
    "image_bytes_read",
    "tar_size",
    "tar_bytes_done",
    "parts_made",
    "sealed_bytes",
    "blocks_compressed",
)


@dataclass(slots=True)
class _Slot:
    """The image of a name. `found` is what the file was when it was opened."""

    number: int
    path: Path
    found: tuple[int, ...]
    opened: Future[View[Any]] | None = None
    view: View[Any] | None = None
    error: BaseException | None = None

    def status(self) -> Any:  # noqa: ANN401  # of a view's own kind, or SlotStatus
        if self.view:
            return self.view.status()
        phase = "failed" if self.error else "opening" if self.opened else "unopened"
        return SlotStatus(phase, str(self.path), str(self.error) if self.error else None)

    def is_over(self, now: tuple[int, ...]) -> bool:
        """Tell whether it could not be opened for a reason that may have gone meanwhile."""
        if self.error is None:
            return False
        # A locked state, too many open files: what is no image's fault may pass.
        lasting = isinstance(self.error, (ImageError, ImageChangedError))
        return not lasting or now != self.found


def _identity(path: Path) -> tuple[int, ...] | None:
    """Give what tells a file from another, or None if it is no image."""
    try:
        found = path.stat()
    except OSError:
        return None
    if stat.S_ISBLK(found.st_mode):
        return (found.st_rdev,)
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Shelf:
    """The images in a folder: regular files and block devices that are not hidden."""

    def __init__(self, folder: Path, opener: Opener) -> None:
        self.created_ns = time.time_ns()
        self._started = time.monotonic()
        self._folder = folder
        self._opener = opener
        self._lock = threading.Lock()
        self._slots: dict[int, _Slot] = {}
        self._named: dict[str, _Slot] = {}
        self._closed = False

    # What is there; asks the disk

    def scan(self) -> list[tuple[str, int]]:
        """Give name and number of each image that is there now.

        Raises:
            OSError: the folder cannot be read.
        """
        names = os.listdir(self._folder)  # noqa: PTH208  # its OSErrors are shown
        found = []
        for name in sorted(names):
            with suppress(UnknownNameError):
                found.append((name, self.find(name)))
        return found

    def find(self, name: str) -> int:
        """Give the number of the image of a name, from 1.

        Raises:
            UnknownNameError: there is none.
        """
        path = self._folder / name
        now = None if name.startswith(".") else _identity(path)
        if now is None:
            raise UnknownNameError(f"no image {name!r} in {self._folder}")
        with self._lock:
            slot = self._named.get(name)
            if slot is None or slot.is_over(now):
                slot = self._named[name] = _Slot(len(self._slots) + 1, path, now)
                self._slots[slot.number] = slot
            return slot.number

    # By number

    def ask(self, number: int) -> Future[View[Any]]:
        """Ask for a view; the future tells when it is open, or holds the error."""
        slot = self._slots[number]
        with self._lock:
            if self._closed:
                raise ClosedError("the mount is being ended")
            if slot.opened is None:
                slot.opened = Future()
                start_abandonable(partial(self._open, slot, slot.opened), "open")
            elif slot.error:
                # It is raised many times over, and each time would add to its traceback.
                slot.error.with_traceback(None)
        return slot.opened

    def _open(self, slot: _Slot, opened: Future[View[Any]]) -> None:
        slot.found = _identity(slot.path) or slot.found
        try:
            view = self._opener(slot.path, slot.number)
        # Whatever it is, those who wait must hear of it: they hang otherwise.
        except BaseException as error:
            expected = isinstance(error, (BundlefsError, OSError))
            log.error("%s: %s", slot.path, error, exc_info=not expected)  # noqa: TRY400  # see it
            with self._lock:
                slot.error = error
                if not self._closed:
                    opened.set_exception(error)
            return
        with self._lock:
            slot.view = view
            if not self._closed:
                opened.set_result(view)
                return
        view.close()

    def view(self, number: int) -> View[Any] | None:
        """Give a view if there is one and it is open."""
        slot = self._slots.get(number)
        return slot.view if slot else None

    def slot_status(self, number: int) -> "DataclassInstance":
        """Tell where one image stands, be it open or not."""
        status: DataclassInstance = self._slots[number].status()
        return status

    # All together

    def status(self) -> ShelfStatus:
        """Tell where all stand; never waits."""
        with self._lock:
            named = sorted(self._named.items())
        images = tuple({"name": name, **asdict(slot.status())} for name, slot in named)
        return ShelfStatus(
            phase="indexing" if any(one["phase"] == "indexing" for one in images) else "idle",
            image=str(self._folder),
            images=images,
            seconds=round(time.monotonic() - self._started, 3),
            pass_seconds=max((one.get("pass_seconds", 0.0) for one in images), default=0.0),
            **{name: sum(one.get(name, 0) for one in images) for name in _SUMS},
        )

    def space(self) -> tuple[int, int]:
        """Give the sizes of the images that are open, and of their bundles; bytes."""
        spaces = [slot.view.space() for slot in list(self._slots.values()) if slot.view]
        return sum(image for image, _ in spaces), sum(bundle for _, bundle in spaces)

    def close(self) -> None:
        """End all: whoever waits gets an error."""
        with self._lock:
            self._closed = True
            views = [slot.view for slot in list(self._slots.values()) if slot.view]
            for slot in self._slots.values():
                if slot.opened and not slot.opened.done():
                    slot.opened.set_exception(ClosedError("the mount is being ended"))
        for view in views:
            view.close()
