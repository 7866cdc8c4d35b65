"""A folder of images: a view of its own for each name, opened when somebody first looks into it.

What is wrong with one image stays with it: its folder answers with the error, and its status
tells. An image that could not be opened is tried again once that may go better. A bundle that has
failed stays failed under its name until the mount ends: a copy tool that goes on by name would mix
its parts with those of another bundle, and the kernel itself looks a name up again where the answer
is ESTALE.

Symbolic links to an image show the same bundle, by numbers of their own. A name that leads to
another image later has failed, if anybody has seen what it led to before; the image has not.

Concurrency: `_lock` guards the names. The images have a lock of their own, in `openings`, which may
be taken while `_lock` is held, and never the other way round. `scan` and `find` ask the disk, and
so run in threads; everything else answers at once.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bundlefs.base.errors import ImageChangedError, UnknownNameError
from bundlefs.base.futures import Promises
from bundlefs.base.threads import Threads, asking_storage
from bundlefs.fuse.asking import look_at
from bundlefs.fuse.looks import Identity, Looks
from bundlefs.fuse.openings import Closer, Opener, Openings
from bundlefs.fuse.shelved import ShelvedImage, Unopened
from bundlefs.fuse.views import View

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShelfStatus:
    """Where all images together stand: sums over all that were opened, and the status of each.

    `phase` is `indexing` if that of any image is, else `idle`: an image that failed tells itself.
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
    blocks_made_again: int = 0
    page_cache_bytes: int = 0
    seconds: float = 0.0
    pass_seconds: float = 0.0
    storage_silent_seconds: float = 0.0
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
    "blocks_made_again",
    "page_cache_bytes",
)


@dataclass(slots=True)
class _Slot:
    """A name, by a number of its own, and the image that it leads to."""

    number: int
    name: str
    image: ShelvedImage
    holders: int = 0
    looked: bool = False
    error: ImageChangedError | None = None

    def status(self) -> Any:  # noqa: ANN401  # of a view's own kind, or Unopened
        if self.error:
            return Unopened("failed", str(self.image.path), 0.0, str(self.error))
        return self.image.status()

    @property
    def seen(self) -> bool:
        """Whether anybody has seen, by this name, what is in it."""
        return self.looked and self.image.created_ns is not None

    def lead_to(self, image: ShelvedImage, place: str) -> None:
        """Have the name lead to an image, or fail for good if it is known to lead to another."""
        if image is self.image or self.error:
            return
        if self.seen:
            self.error = ImageChangedError(
                f"image {place} led to {self.image.path} when it was looked into, and leads to"
                f" {image.path} now; unmount, and mount it again to bundle what is there now"
            )
            log.error("%s", self.error)
        elif not self.holders:
            self.image, self.looked = image, False


_SIZE = 2


def _is_empty(identity: Identity) -> bool:
    return len(identity) > _SIZE and identity[_SIZE] == 0


def _most(each: Iterable[dict[str, Any]], field: str) -> float:
    return max((one.get(field, 0.0) for one in each), default=0.0)


def _keep_open(_number: int, _for_good: bool) -> None:  # noqa: FBT001  # a `Closer`
    """Close nothing: the views close what they have opened."""


class Shelf:
    """The images in a folder: regular files and block devices that are not hidden.

    An empty file is no image: it is shown once it has content. An image that was emptied after it
    was looked into stays, as one that has changed.
    """

    def __init__(self, folder: Path, opener: Opener, closer: Closer = _keep_open) -> None:
        self.created_ns = time.time_ns()
        self._started = time.monotonic()
        self._folder = folder
        self._looks = Looks()
        self._threads = Threads(sys.maxsize, "look")
        self._promises = Promises()
        self._openings = Openings(opener, closer, self._looks.identity)
        self._lock = threading.Lock()
        self._slots: dict[int, _Slot] = {}
        self._named: dict[str, _Slot] = {}

    @property
    def folders(self) -> Self:
        """The shelf itself: the mount's root lists a folder for each image."""
        return self

    # What is there: asks the disk

    def scan(self) -> list[tuple[str, int]]:
        """Return name and number of each image that is there now.

        Raises:
            OSError: the folder cannot be read.
        """
        with asking_storage():
            names = os.listdir(self._folder)  # noqa: PTH208  # its OSErrors are shown
        found = []
        for name in sorted(names):
            with suppress(UnknownNameError):
                found.append((name, self.find(name)))
        return found

    def find(self, name: str) -> int:
        """Return the number of the image of a name, 1 or more.

        A file whose storage does not answer is taken for what it was, or for an image: whoever
        looks into it waits, and nobody else.

        Raises:
            UnknownNameError: there is no such image.
        """
        path = self._folder / name
        found = None if name.startswith(".") else self._looks.look(path)
        slot = self._named.get(name)
        if found is None or (_is_empty(found.identity) and not (slot and slot.seen)):
            raise UnknownNameError(f"no image {name!r} in {self._folder}")
        if slot and not found.identity:
            return slot.number
        image = self._openings.image(found.place, found.path, found.identity)
        with self._lock:
            slot = self._named.get(name)
            if slot is None:
                slot = self._named[name] = _Slot(len(self._slots) + 1, name, image)
                self._slots[slot.number] = slot
            slot.lead_to(image, str(path))
            return slot.number

    def finding(self, name: str) -> Future[int]:
        """Ask for what `find` gives."""
        return self._promises.promise(self._threads.submit(partial(self.find, name)))

    def scanning(self) -> Future[list[tuple[str, int]]]:
        """Ask for what `scan` gives."""
        return self._promises.promise(self._threads.submit(self.scan))

    # By number

    def hold(self, number: int) -> "Future[View[Any]]":
        """Ask for a view; the future tells when it is open, or holds the error.

        It stays open until `release`, which is called once for each `hold`.

        Raises:
            UnknownNameError: no image has this number.
            ImageChangedError: its name leads to another image.
        """
        slot = self._slot(number)
        with self._lock:
            if slot.error:
                # It is raised many times over, and each time would add to its traceback.
                raise slot.error.with_traceback(None)
            future = self._openings.hold(slot.image)
            slot.holders += 1
            slot.looked = True
        return future

    def release(self, number: int) -> None:
        """Take back one `hold`."""
        slot = self._slot(number)
        with self._lock:
            slot.holders -= 1
        self._openings.release(slot.image)

    def _slot(self, number: int) -> _Slot:
        slot = self._slots.get(number)
        if slot is None:
            raise UnknownNameError(f"no image has the number {number}")
        return slot

    def view(self, number: int) -> "View[Any] | None":
        """Return a view if there is one and it is open: for sure while it is held."""
        slot = self._slots.get(number)
        return slot.image.view if slot else None

    def begun_ns(self, number: int) -> int:
        """Return when the bundle of an image was begun, or the mount while that is not known."""
        slot = self._slots.get(number)
        return (slot and slot.image.created_ns) or self.created_ns

    def status_of(self, number: int) -> "DataclassInstance":
        """Return where one image stands, be it open or not; 0 is all of them together."""
        status: DataclassInstance = self._slot(number).status() if number else self.status()
        return status

    def look_at(self, number: int) -> Future[None] | None:
        """Have a thread see whether one image is what it was, if it is open; 0 is all of them."""
        view = self.view(number)
        if view is None:
            return None if number else self.look()
        return look_at(view)

    # All together

    def look(self) -> Future[None]:
        """Have a thread see whether the images are what they were; done when `status` tells."""
        return self._openings.look()

    def status(self) -> ShelfStatus:
        """Return where all stand; this never waits."""
        with self._lock:
            named = sorted(self._named.items())
        images = tuple({"name": name, **asdict(slot.status())} for name, slot in named)
        each = [asdict(image.status()) for image in self._openings.all()]
        return ShelfStatus(
            phase="indexing" if any(one["phase"] == "indexing" for one in each) else "idle",
            image=str(self._folder),
            images=images,
            seconds=round(time.monotonic() - self._started, 3),
            pass_seconds=_most(each, "pass_seconds"),
            storage_silent_seconds=_most(each, "storage_silent_seconds"),
            **{name: sum(one.get(name, 0) for one in each) for name in _SUMS},
        )

    def space(self) -> tuple[int, int]:
        """Return the sizes of the images that were opened, and of their bundles; bytes."""
        spaces = [image.space() for image in self._openings.all()]
        return sum(image for image, _ in spaces), sum(bundle for _, bundle in spaces)

    def close(self) -> None:
        """End all: whoever waits gets an error."""
        self._threads.shut()
        self._promises.close()
        self._openings.close()
