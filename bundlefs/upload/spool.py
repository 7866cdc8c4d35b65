"""Parts as the engine makes them, without FUSE: a few at a time in a folder, until they are sent.

What an earlier run has sent is not made again: if the state goes on with the bundle, a part that is
in the bucket with its size and the bundle's time is this bundle's, as it is for a mount's files.

Concurrency: the export has a thread; the sink is its own.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundlefs.base.threads import start_abandonable
from bundlefs.bundling.bundle import Bundle as Made
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.names import Part as Number
from bundlefs.bundling.sinks import DirectorySink, SinkFile
from bundlefs.state.index import PART_SIZE
from bundlefs.upload.bundle import Bundle, read_bundle
from bundlefs.upload.course import Course, Part
from bundlefs.upload.feeds import Feed, IsThere, projected
from bundlefs.upload.words import UploadError


class Spool:
    """A bundle that is being exported to a folder, part by part.

    Args:
        made: the bundle, of which nobody has read.
        tap: where its blocks come by.
        manifests: their names.
        folder: where parts are until they are sent; empty.
    """

    room: int | None = 8

    def __init__(self, made: Made, tap: Tap, manifests: Sequence[str], folder: Path) -> None:
        self.manifests = list(manifests)
        self._made = made
        self._tap = tap
        self._folder = folder
        self._sizes: dict[str, int] = {}
        self._thread: threading.Thread | None = None

    def start(self, course: Course, is_there: IsThere) -> None:
        """Have a thread make the parts."""
        self._thread = start_abandonable(lambda: self._run(course, is_there), "export")

    def _run(self, course: Course, is_there: IsThere) -> None:
        def passed(name: str) -> bool:
            size = self._size(name)
            there = is_there(name, size, self._made.created_ns)
            if there and course.next() is not None:
                self._sizes[name] = size
                course.passed(size)
            return there

        try:
            sink = _Sink(self, course)
            Export(self._made, self._tap, sink, None, passed).run()
            course.end(len(self._sizes))
        except BaseException as error:  # noqa: BLE001  # the main thread must hear of it: it would wait for ever
            course.stop(error)

    def _size(self, name: str) -> int:
        """Return the size of a part that an earlier run has sealed."""
        return self._made.known_size(self._made.find(name)) or PART_SIZE

    def taken(self, part: Part) -> None:
        """Note a part that lies in the folder."""
        # As in a mount, so that tools compare it with what they have sent before.
        os.utime(part.path, ns=(self._made.created_ns, self._made.created_ns))
        self._sizes[part.path.name] = part.size

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def is_part(self, name: str) -> bool:
        """Return whether a file is a part."""
        return isinstance(self._made.find(name), Number)

    def let_go(self, part: Part) -> None:
        """Make room for another."""
        part.path.unlink()

    def total(self) -> int | None:
        """Return what the bundle comes to if all of the image is like what is made of it."""
        status = self._made.status()
        return projected(status.sealed_bytes, status.tar_bytes_done, status.tar_size)

    def bundle(self) -> Bundle:
        """Read the manifests, which lie in the folder by now."""
        return read_bundle(self._folder, self._sizes)

    def join(self) -> None:
        """Wait for the thread's end; the course has stopped, and the bundle is closed."""
        if self._thread:
            self._thread.join()


class _Sink:
    """Waits until there is room for a part before it begins one."""

    def __init__(self, spool: Spool, course: Course) -> None:
        self._spool = spool
        self._course = course
        self._inner = DirectorySink(spool.folder)

    def open(self, filename: str) -> SinkFile:
        """Begin a file."""
        if not self._spool.is_part(filename):
            return self._inner.open(filename)
        if self._course.next() is None:
            raise UploadError("the upload was ended")
        path = self._spool.folder / filename
        return _File(self._inner.open(filename), lambda size: self._give(Part(path, size)))

    def _give(self, part: Part) -> None:
        self._spool.taken(part)
        self._course.made(part)


class _File:
    """A part, which is given to the course once it is whole."""

    def __init__(self, inner: SinkFile, give: Callable[[int], None]) -> None:
        self._inner = inner
        self._give = give
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Write more of it."""
        self._inner.write(data)
        self._size += len(data)

    def close(self) -> None:
        """Have it sent."""
        self._inner.close()
        self._give(self._size)

    def discard(self) -> None:
        """Drop it."""
        self._inner.discard()


@contextmanager
def spooled(made: Made, tap: Tap, manifests: Sequence[str], work: Path) -> Iterator[Feed]:
    """Yield the parts of a bundle as they are made, in a folder of `work`."""
    folder = work / "parts"
    folder.mkdir()
    spool = Spool(made, tap, manifests, folder)
    try:
        yield spool
    finally:
        made.close()
        spool.join()
