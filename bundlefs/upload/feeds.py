"""Where the parts come from: a folder that has them all, or a mount that makes them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bundlefs.base.threads import start_abandonable
from bundlefs.upload.bundle import Bundle, read_bundle
from bundlefs.upload.course import Course, Part
from bundlefs.upload.words import UploadError

_STATUS = ".bundlefs/status.json"
_LOOK_SECONDS = 0.5
_PIECE = 1 << 20
_ASKING = 3
"""Parts that are waited for at a time, so that the pass never rests while there is room."""


IsThere = Callable[[str, int, int], bool]
"""Tells of name, size and time (in ns) of a file whether it need not be sent."""


class Feed(Protocol):
    """The parts of one bundle, as they become whole."""

    manifests: list[str]
    room: int | None
    """How many parts it keeps until they are sent, if that is few."""

    def start(self, course: Course, is_there: IsThere) -> None:
        """Begin to give parts to a course."""

    def let_go(self, part: Part) -> None:
        """Hear that a part is not needed any more."""

    def total(self) -> int | None:
        """Return about how large all parts will be, in bytes; None if nothing tells yet.

        Raises:
            UploadError: nothing more will be made.
        """

    def bundle(self) -> Bundle:
        """Return the whole bundle, once all parts are made; of parts only the sizes count."""


class Whole:
    """A folder that has a bundle."""

    room: int | None = None

    def __init__(self, folder: Path) -> None:
        self._bundle = read_bundle(folder)
        self.manifests = self._bundle.manifests

    def start(self, course: Course, _is_there: IsThere) -> None:
        """Give all parts at once."""
        for name, size in self._bundle.parts.items():
            course.made(Part(self._bundle.folder / name, size))
        course.end(len(self._bundle.parts))

    def let_go(self, part: Part) -> None:
        """Leave it."""

    def total(self) -> int | None:
        """Return how large they are."""
        return sum(self._bundle.parts.values())

    def bundle(self) -> Bundle:
        """Return it."""
        return self._bundle


class Shown:
    """A mount, asked for its parts by name and in order: to list it would wait for the last one."""

    room: int | None = None

    def __init__(self, folder: Path, status: dict[str, Any]) -> None:
        self._folder = folder
        self._start, _, digits = status["first_part"].rpartition(".")
        self._width = len(digits)
        self.manifests: list[str] = status["manifests"]
        self._status: dict[str, Any] | None = status
        # Of a bundle whose first byte is not made yet, nothing can be there.
        self._new = status["sealed_bytes"] == 0

    def start(self, course: Course, is_there: IsThere) -> None:
        """Have threads ask for parts."""
        for _ in range(_ASKING):
            start_abandonable(lambda: self._ask(course, is_there), "ask")
        start_abandonable(lambda: self._look(course), "look")

    def _look(self, course: Course) -> None:
        """Look how far it is, now and then; a mount that stands still holds up nobody else."""
        while not course.over:
            self._status = status_of(self._folder)
            time.sleep(_LOOK_SECONDS)

    def _ask(self, course: Course, is_there: IsThere) -> None:
        buffer = bytearray(_PIECE)
        try:
            while (number := course.next()) is not None:
                path = self._folder / f"{self._start}.{number:0{self._width}}"
                try:
                    about = path.stat()
                    # To read what an earlier run has sent would have it made again.
                    if not self._new and is_there(path.name, about.st_size, about.st_mtime_ns):
                        course.passed(about.st_size)
                        continue
                    _pull(path, buffer)
                    course.made(Part(path, about.st_size))
                except FileNotFoundError:
                    course.end(number)
                except OSError as error:
                    raise self._explained(error) from error
        except BaseException as error:  # noqa: BLE001  # the main thread must hear of it: it would wait for ever
            course.stop(error)

    def _explained(self, error: OSError) -> Exception:
        """Return why the mount has failed, as it says itself."""
        status = status_of(self._folder) or {}
        return UploadError(status["error"]) if status.get("error") else error

    def let_go(self, part: Part) -> None:
        """Leave it."""

    def total(self) -> int | None:
        """Return what the bundle comes to if all of the image is like what is made of it."""
        status = self._status
        if status is None:
            return None
        if status["error"]:
            raise UploadError(status["error"])
        return projected(status["sealed_bytes"], status["tar_bytes_done"], status["tar_size"])

    def bundle(self) -> Bundle:
        """Read the folder, which is complete by now."""
        return read_bundle(self._folder)


def _pull(path: Path, buffer: bytearray) -> None:
    """Read a file, so that it stays in the kernel's memory until it is sent.

    A mount keeps but the first parts; what it has made just now it still has.
    """
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def projected(sealed: int, done: int, size: int) -> int | None:
    """Return how many bytes come of a tar stream of `size`, of which `done` has become `sealed`."""
    return sealed * size // done if done else None


def status_of(folder: Path) -> dict[str, Any] | None:
    """Return what a mount says of itself, or None if it is none."""
    try:
        status: dict[str, Any] = json.loads((folder / _STATUS).read_bytes())
    except (OSError, ValueError):
        return None
    return status


def _opened(folder: Path) -> dict[str, Any] | None:
    """Return the status of a mount, or of an image in one, which is opened by a look into it."""
    while (status := status_of(folder)) and status["phase"] in ("unopened", "opening", "unpacking"):
        (folder / ".bundlefs-upload").exists()
        time.sleep(_LOOK_SECONDS)
    return status


def feed_of(folder: Path) -> Feed:
    """Return the parts of a folder: a mount, or one that has a bundle.

    Raises:
        UploadError: it has none.
        OSError: it cannot be read.
    """
    status = _opened(folder)
    if status and "images" in status:
        raise UploadError(f"{folder} shows a folder for each of many images; give one of those")
    return Shown(folder, status) if status and "first_part" in status else Whole(folder)
