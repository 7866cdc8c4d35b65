"""Where the files of a bundle go when nobody mounts it.

A `Sink` opens a file by name for writing. What is written has its final name only
after `close`, and `discard` leaves nothing behind, so a reader never finds half a part.

Concurrency: one thread writes to a `PartWriter`, and another one may give it up.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from bundlefs.base.checks import whole
from bundlefs.base.errors import ClosedError, UsageError
from bundlefs.base.files import Draft, sweep, write_all
from bundlefs.base.spans import Span, split
from bundlefs.state.index import PART_SIZE


class SinkFile(Protocol):
    """A file that is being written."""

    def write(self, data: memoryview, /) -> object:
        """Take all of `data`, or raise."""

    def close(self) -> object:
        """Have the file under its name, durably; or raise, and `discard` comes next."""

    def discard(self) -> object:
        """Leave nothing behind, also where a `write` or `close` has failed."""


class Sink(Protocol):
    """A place for files."""

    def open(self, filename: str, /) -> SinkFile:
        """Begin a file, which takes the place of one of the same name when it is closed."""


@contextmanager
def written(sink: Sink, filename: str) -> Iterator[SinkFile]:
    """Yield a file that has its name at the end of the `with`; nothing is left after an error."""
    file = sink.open(filename)
    try:
        yield file
        file.close()
    except BaseException:
        _drop(file)
        raise


def _drop(file: SinkFile) -> None:
    """Discard after an error, which the caller must hear of, whatever becomes of this."""
    with suppress(Exception):
        file.discard()


class DirectorySink:
    """A sink that is a folder: each file is written beside its name, synced and renamed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def open(self, filename: str) -> SinkFile:
        """Begin a file in the folder, which is made if it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return _Renamed(self.folder / filename)


class _Renamed:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        with self._named():
            # What a run that was killed has left of this file.
            sweep(path)
            self._draft = Draft(path, private=False)

    def write(self, data: memoryview) -> None:
        with self._named():
            write_all(self._draft.file, data, self._size)
        self._size += len(data)

    def close(self) -> None:
        with self._named(), self._draft as draft:
            draft.publish(replace=True)

    def discard(self) -> None:
        self._draft.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let an error say which file it is about: the system knows but a number here."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise


class MemorySink:
    """A sink that is a dictionary: `files` maps names to bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, filename: str) -> SinkFile:
        """Begin a file in memory."""
        return _InMemory(lambda data: self.files.__setitem__(filename, data))


class _InMemory:
    def __init__(self, keep: Callable[[bytes], object]) -> None:
        self._keep = keep
        self._data = BytesIO()

    def write(self, data: memoryview) -> None:
        self._data.write(data)

    def close(self) -> None:
        self._keep(self._data.getvalue())

    def discard(self) -> None:
        self._data.close()


class FsspecSink:
    """A sink that is a folder of an object store, by any fsspec file system: S3, GCS, Azure.

    A file is kept in memory, at most a part's 10 MiB, and put in one request when it is closed:
    object stores show all of it or nothing. For a local folder take `DirectorySink`.

    Args:
        filesystem: an `fsspec.AbstractFileSystem`.
        folder: where in it, for instance `bucket/prefix`.
        options: what its `pipe_file` takes beside, for s3fs `ACL="aws-exec-read"`.
    """

    def __init__(self, filesystem: Any, folder: str, **options: Any) -> None:  # noqa: ANN401  # fsspec has no types
        self._filesystem = filesystem
        self._folder = folder.rstrip("/")
        self._options = options

    def open(self, filename: str) -> SinkFile:
        """Begin a file, which is put when it is closed."""
        path = f"{self._folder}/{filename}"
        return _InMemory(lambda data: self._filesystem.pipe_file(path, data, **self._options))


class PartWriter:
    """Cuts the sealed stream into parts and writes them to a sink, one after the other.

    After an error it takes nothing more: what is still on its way would go to a wrong place.

    Args:
        sink: where to.
        name: gives the name of a part by its number.
        start: where in the sealed stream the first byte that is written lies: a part's start.

    Raises:
        UsageError: no part starts there.
    """

    def __init__(self, sink: Sink, name: Callable[[int], str], start: int = 0) -> None:
        if whole("start", start) % PART_SIZE:
            raise UsageError(f"start {start:,}: parts start at multiples of {PART_SIZE:,}")
        self._sink = sink
        self._name = name
        self._position = start
        self._file: SinkFile | None = None
        self._lock = threading.Lock()
        self._given_up = False

    def write(self, sealed: memoryview) -> None:
        """Write the next sealed bytes.

        Raises:
            ClosedError: after `discard`, or after an error.
        """
        with self._or_give_up():
            self._write(sealed)

    def _write(self, sealed: memoryview) -> None:
        span = Span(self._position, self._position + len(sealed))
        for number, inside in split(span, PART_SIZE):
            if self._file is None:
                self._file = self._sink.open(self._name(number))
            self._file.write(sealed[: inside.length])
            sealed = sealed[inside.length :]
            self._position += inside.length
            if inside.stop == PART_SIZE:
                self._close()

    def close(self) -> None:
        """End the last part."""
        with self._or_give_up():
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Drop the part that is being written, and take nothing more; those before are whole."""
        with self._lock:
            self._give_up()

    @contextmanager
    def _or_give_up(self) -> Iterator[None]:
        with self._lock:
            if self._given_up:
                raise ClosedError("the bundle was given up")
            try:
                yield
            except BaseException:
                self._give_up()
                raise

    def _give_up(self) -> None:
        self._given_up = True
        file, self._file = self._file, None
        if file is not None:
            _drop(file)
