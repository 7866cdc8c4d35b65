"""One image of a shelf, open or not: what is known of it, and what is told of it.

Concurrency: nothing is guarded here. `openings`, which opens images and lets go of them, changes
them under its own lock; `status` and `space` may be asked for without it, at any moment.
"""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bundlefs.base import progress
from bundlefs.base.errors import ImageChangedError, ImageError
from bundlefs.base.storage import Storage
from bundlefs.fuse.looks import Identity
from bundlefs.fuse.views import View, Watched

RETRY_SECONDS = 1.0
"""The least time between two tries to open an image."""


class Passing(View[Any], Watched, Protocol):
    """A view that can be closed and made again."""

    def idle(self) -> bool:
        """Return whether nothing is under way."""

    def failure(self) -> BaseException | None:
        """Return the error if it has failed for good."""


@dataclass(frozen=True, slots=True)
class Unopened:
    """What is told of an image that is not open.

    Attributes:
        phase: `unopened`, `opening`, `unpacking` or `failed`.
        pass_bytes_done: of `pass_bytes_total`, the size of a compressed file that is unpacked, or
            gone through to find its size; else both are 0.
    """

    phase: str
    image: str
    storage_silent_seconds: float
    error: str | None
    pass_bytes_done: int = 0
    pass_bytes_total: int = 0
    pass_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class ShelvedImage:
    """An image, whatever the names it is shown by.

    Attributes:
        number: what the opener and the closer know it by.
        path: where it is.
        found: what its file was when it was opened.
        created_ns: when its bundle was begun, once that has been shown.
        opened: done when it is open; holds the error if opening it has failed.
        view: while it is open.
        error: why it is not open; `final` if it never will be.
        tried: when that was found.
        holders: how many have it open.
        used: when it was held last, in a count of its own.
        last: status and space when it was let go of.
        closing: set once what was let go of is closed.
    """

    number: int
    path: Path
    found: Identity
    created_ns: int | None = None
    opened: "Future[View[Any]] | None" = None
    view: Passing | None = None
    error: BaseException | None = None
    final: bool = False
    tried: float = 0.0
    logged: str = ""
    holders: int = 0
    used: int = 0
    last: tuple[Any, tuple[int, int]] | None = None
    closing: threading.Event = field(default_factory=threading.Event)
    storage: Storage = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Storage.of(self.path)

    def status(self) -> Any:  # noqa: ANN401  # of a view's own kind, or Unopened
        """Return where it stands; of an image that was let go of, where it stood."""
        if view := self.view:
            return view.status()
        if self.last and (self.error is None or self.last[0].phase == "failed"):
            return self.last[0]
        silent = round(self.storage.silent_seconds, 1)
        if self.error or not self.opened:
            phase, error = ("failed", str(self.error)) if self.error else ("unopened", None)
            return Unopened(phase, str(self.path), silent, error)
        if (wait := progress.of(self.path)) is None:
            return Unopened("opening", str(self.path), silent, None)
        done, total, seconds = wait.done, wait.total or 0, round(wait.seconds, 3)
        return Unopened("unpacking", str(self.path), silent, None, done, total, seconds)

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of the bundle as far as it is made; bytes."""
        if view := self.view:
            return view.space()
        return self.last[1] if self.last else (0, 0)

    def fail(self, error: BaseException) -> None:
        """Have whoever asks get an error; it is raised many times over, and must not grow."""
        self.error = error
        self.tried = time.monotonic()
        self.opened = Future()
        self.opened.set_exception(error)

    def try_again(self, now: Identity) -> None:
        """Forget an error whose reason may have gone meanwhile."""
        if self.error is None or self.final or time.monotonic() - self.tried < RETRY_SECONDS:
            return
        # A locked state or too many open files are not the image's own fault, and may pass.
        lasting = isinstance(self.error, (ImageError, ImageChangedError))
        if system_error(self.error) or not lasting or now != self.found:
            self.error = self.opened = None


def system_error(error: BaseException | None) -> int | None:
    """Return the errno that an error comes from, or None if it comes from none."""
    while error is not None:
        # Libraries report damaged data by an OSError without a number.
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__
    return None
