"""Opening the images of a shelf on demand, and letting go of them while nobody needs them.

An image takes some open files for as long as it is open, and one that was deleted keeps
its disk space. So the least recently used one is let go of when open files get
scarce, and a deleted one as soon as nobody has it open. Opened again, it is the same bundle:
same keys, same bytes, same times; if it turns out to be another one, it is refused for good.

Concurrency: `_lock` guards the images, all of them and what is in each, and is never held while
something is opened, closed or waited for. Each image is opened in a thread of its own; one more
looks after all that are open. An image is closed only while nobody holds it and nothing is under
way for it, and is opened again only after that (`closing`).
"""

import errno
import itertools
import logging
import os
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from bundlefs.base.errors import (
    BundlefsError,
    ClosedError,
    ImageChangedError,
    InconsistentError,
)
from bundlefs.base.threads import PATIENCE_SECONDS, start_abandonable
from bundlefs.fuse.looks import Identity
from bundlefs.fuse.shelved import Passing, ShelvedImage, system_error
from bundlefs.fuse.views import View

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
_SPARE_FILES = 64
_BATCH = 16
_SHORTAGES = (errno.EMFILE, errno.ENFILE)


Opener = Callable[[Path, int], Passing]
"""Opens the image at a path, as the view of a number."""
Closer = Callable[[int, bool], None]
"""Closes what the opener has opened for the view of a number; true if that is for good."""


class Openings:
    """Opens images and lets go of them."""

    def __init__(
        self, opener: Opener, closer: Closer, identity: Callable[[Path], Identity | None]
    ) -> None:
        self._opener = opener
        self._closer = closer
        self._identity = identity
        self._lock = threading.Lock()
        self._images: dict[Path, ShelvedImage] = {}
        self._clock = itertools.count()
        self._sweeping = False
        self._looking: Future[None] | None = None
        self._closed = False

    def image(self, place: Path, path: Path, now: Identity) -> ShelvedImage:
        """Return the image of a place, open or not; `path` leads there, and is the one to show."""
        with self._lock:
            image = self._images.get(place)
            if image is None:
                image = self._images[place] = ShelvedImage(len(self._images) + 1, path, now)
            image.try_again(now)
            return image

    def all(self) -> list[ShelvedImage]:
        """Return all images that were ever asked for."""
        with self._lock:
            return list(self._images.values())

    def hold(self, image: ShelvedImage) -> "Future[View[Any]]":
        """Ask for a view, which stays open until `release`; the future holds the error if any."""
        with self._lock:
            if self._closed:
                raise ClosedError("the mount is being ended")
            image.holders += 1
            image.used = next(self._clock)
            if image.opened is None:
                image.opened = Future()
                start_abandonable(partial(self._open, image, image.opened), "open")
            elif image.error:
                image.error.with_traceback(None)
            return image.opened

    def release(self, image: ShelvedImage) -> None:
        """Take back one `hold`."""
        with self._lock:
            image.holders -= 1
            image.used = next(self._clock)

    # Opening, in a thread

    def _open(self, image: ShelvedImage, opened: "Future[View[Any]]") -> None:
        try:
            image.found = self._identity(image.path) or image.found
            view = self._same(image, self._opened(image))
        except BaseException as error:  # noqa: BLE001  # those who wait must hear of it: they hang otherwise
            self._tell_failure(image, opened, error)
            return
        found = image.found
        # If it cannot be looked at now, the view itself looks at it.
        with suppress(OSError):
            found = self._identity(image.path) or found
        with self._lock:
            image.view, image.created_ns = view, view.created_ns
            # The view itself finds what was written since it was opened.
            image.found = found
            if not self._closed:
                opened.set_result(view)
                self._start_sweeping()
                return
        view.close()

    def _opened(self, image: ShelvedImage) -> Passing:
        """Open an image, and let go of others if open files are scarce."""
        if image.last:
            # Another thread may be closing what it had open.
            image.closing.wait()
        self._make_room()
        while True:
            try:
                return self._opener(image.path, image.number)
            except (BundlefsError, OSError) as error:
                if system_error(error) not in _SHORTAGES or not self._let_go_of_idle(_BATCH):
                    raise

    def _same(self, image: ShelvedImage, view: Passing) -> Passing:
        """Refuse another bundle than the one that was shown: a copy tool would mix the two."""
        if image.created_ns in (None, view.created_ns):
            return view
        view.close()
        self._closer(image.number, True)  # noqa: FBT003  # for good
        raise InconsistentError(
            f"image {image.path}: its state was removed or replaced while the image was not open,"
            " and the bundle that was shown cannot be gone on with; unmount, and mount it again"
        )

    def _tell_failure(
        self, image: ShelvedImage, opened: "Future[View[Any]]", error: BaseException
    ) -> None:
        expected = isinstance(error, (BundlefsError, OSError))
        if str(error) != image.logged:
            log.error("%s: %s", image.path, error, exc_info=not expected and error)
        with self._lock:
            image.logged = str(error)
            # What was shown of the bundle stays true, and nothing else may take its name.
            image.final = image.created_ns is not None and isinstance(
                error, (ImageChangedError, InconsistentError)
            )
            image.error, image.tried = error, time.monotonic()
            if not self._closed:
                opened.set_exception(error)

    # Letting go

    def _make_room(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = min(_SPARE_FILES, limit // 4)
        while _open_files() > limit - spare and self._let_go_of_idle(1):
            pass

    def _let_go_of_idle(self, count: int) -> int:
        """Let go of the least recently used ones; return how many there were."""
        by_use = sorted(self.all(), key=lambda image: image.used)
        let_go = (image for image in by_use if self._let_go(image))
        return sum(1 for _ in itertools.islice(let_go, count))

    def _let_go(self, image: ShelvedImage) -> bool:
        """Close an image if nobody needs it open; return whether it was closed."""
        with self._lock:
            view = image.view
            if self._closed or view is None or image.holders or not view.idle():
                return False
            image.view, image.opened = None, None
            image.last = view.status(), view.space()
            image.closing.clear()
            if failure := view.failure():
                image.final = True
                image.fail(failure)
        try:
            view.close()
            self._closer(image.number, image.final)
        finally:
            image.closing.set()
        return True

    # Looking after those that nobody reads

    def look(self) -> Future[None]:
        """Look in a thread at each image that was opened; the future is done when all were."""
        with self._lock:
            if self._looking is None:
                self._looking = Future()
                start_abandonable(self._look, "look")
            return self._looking

    def _look(self) -> None:
        try:
            self._sweep()
        finally:
            with self._lock:
                looking, self._looking = self._looking, None
            if looking:
                looking.set_result(None)

    def _start_sweeping(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            start_abandonable(self._keep_sweeping, "sweep")

    def _keep_sweeping(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            self._sweep()
            with self._lock:
                if self._closed or not any(image.view for image in self._images.values()):
                    self._sweeping = False
                    return

    def _sweep(self) -> None:
        """Find what has changed or is gone, and close the files of it that nobody reads."""
        for image in self.all():
            if view := image.view:
                # If its storage does not answer, the next sweep finds out.
                with suppress(Exception):
                    view.when_checked().result(PATIENCE_SECONDS)
                if isinstance(view.failure(), ImageChangedError):
                    self._let_go(image)
            elif image.last and not image.error:
                self._compare(image)

    def _compare(self, image: ShelvedImage) -> None:
        """Have an image fail that has changed since it was let go of."""
        try:
            now = self._identity(image.path)
        except OSError:
            # It cannot be told now; the next look may.
            return
        if now in (image.found, ()):
            return
        error = ImageChangedError(
            f"image {image.path} was {'changed' if now else 'removed'} while in use; unmount, and"
            " mount it again to bundle it as it is now"
        )
        with self._lock:
            if image.view or image.opened:
                return
            image.final = True
            image.fail(error)
        log.error("%s has failed and stays failed: %s", image.path, error)

    def close(self) -> None:
        """End all: whoever waits gets an error."""
        with self._lock:
            self._closed = True
            views = [image.view for image in self._images.values() if image.view]
            for image in self._images.values():
                if image.opened and not image.opened.done():
                    image.opened.set_exception(ClosedError("the mount is being ended"))
        for view in views:
            view.close()


def _open_files() -> int:
    # Where /proc is not there, opening fails when there is no room, and that makes some.
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names alone
    return 0
