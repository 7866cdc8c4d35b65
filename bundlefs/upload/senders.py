"""Who sends parts: as many threads as a tool has use for, each with some parts at a time."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

from bundlefs.base.threads import settle, start_abandonable
from bundlefs.upload.course import Course
from bundlefs.upload.words import UploadError

T = TypeVar("T")


class Sender(Protocol):
    """A tool that is ready to send files.

    Attributes:
        slots: how many calls of `send` are of use at a time.
        least: how many files a call should have, where as many come.
        ahead: how many files may wait for it, or be on their way.
        at_first: the same, until the first one has arrived.
    """

    slots: int
    least: int
    ahead: int
    at_first: int

    def send(self, paths: list[Path]) -> None:
        """Send what is not there as it is, and return when it has arrived.

        Raises:
            UploadError: some has not.
        """

    def is_there(self, name: str, size: int, time_ns: int) -> bool:
        """Return whether a file need not be sent, as the tool compares them.

        Raises:
            UploadError: that cannot be found out.
        """

    def close(self) -> None:
        """End what was started; whoever is in `send` gets an error. Again does nothing."""


class Sending(Protocol):
    """A `Sender` that does not know what is there."""

    slots: int
    least: int
    ahead: int
    at_first: int

    def send(self, paths: list[Path]) -> None:
        """Send files."""

    def close(self) -> None:
        """End what was started."""


class Remaining:
    """Sends what is not there yet.

    Args:
        inner: sends it.
        is_there: as of a `Sender`.
        known: tells whether `is_there` answers at once; where it does not, all is sent.
    """

    def __init__(
        self,
        inner: Sending,
        is_there: Callable[[str, int, int], bool],
        known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._inner = inner
        self._known = known
        self.is_there = is_there
        self.slots = inner.slots
        self.least = inner.least
        self.ahead = inner.ahead
        self.at_first = inner.at_first

    def send(self, paths: list[Path]) -> None:
        """Send what is missing among these."""
        if missing := [path for path in paths if not (self._known() and self._has(path))]:
            self._inner.send(missing)

    def _has(self, path: Path) -> bool:
        about = path.stat()
        return self.is_there(path.name, about.st_size, about.st_mtime_ns)

    def close(self) -> None:
        """End what was started."""
        self._inner.close()


def in_background(call: Callable[[], T]) -> Future[T]:
    """Begin a call, and return its result to come."""
    future: Future[T] = Future()
    start_abandonable(lambda: settle(future, call), "call")
    return future


def start_sending(course: Course, sender: Sender) -> None:
    """Have threads send what the course has."""
    for _ in range(sender.slots):
        start_abandonable(lambda: _send(course, sender), "send")


def _send(course: Course, sender: Sender) -> None:
    try:
        while parts := course.take():
            try:
                sender.send([part.path for part in parts])
            except (UploadError, OSError) as error:
                course.failed(parts, error)
            else:
                course.sent(parts)
    except BaseException as error:  # noqa: BLE001  # the main thread must hear of it: it would wait for ever
        course.stop(error)
