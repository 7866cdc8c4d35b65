"""Where the files of a bundle go when nobody mounts it.

A `Sink` opens a file by name for writing. What is written has its final name only
after `close`; `discard` leaves nothing behind. So a reader never finds half a part.
"""

import glob
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from bundlefs.index import PART_SIZE
from bundlefs.spans import Span, split


class SinkFile(Protocol):
    """A file that is being written."""

    def write(self, data: memoryview, /) -> object:
        """Take all of `data`, or raise."""

    def close(self) -> object:
        """Have the file under its name, durably."""

    def discard(self) -> object:
        """Leave nothing behind."""


class Sink(Protocol):
    """A place for files."""

    def open(self, filename: str, /) -> SinkFile:
        """Begin a file, which takes the place of one of the same name when it is closed."""


class DirectorySink:
    """A sink that is a folder: each file is written beside its name, synced and renamed."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def open(self, filename: str) -> SinkFile:
        """Begin a file in the folder, which must be there."""
        return _Renamed(self.folder / filename)


class _Renamed:
    def __init__(self, path: Path) -> None:
        self._path = path
        # What a run that was killed has left of this file.
        for old in path.parent.glob(f".{glob.escape(path.name)}.????????"):
            old.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "wb", buffering=0)

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    def close(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            mask = os.umask(0)
            os.umask(mask)
            self._temporary.chmod(0o666 & ~mask)
            self._temporary.rename(self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        self._file.close()
        with suppress(OSError):
            self._temporary.unlink()


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

    Args:
        sink: where to.
        name: gives the name of a part by its number.
        start: where in the sealed stream the first byte that is written lies: a part's start.
    """

    def __init__(self, sink: Sink, name: Callable[[int], str], start: int = 0) -> None:
        self._sink = sink
        self._name = name
        self._position = start
        self._file: SinkFile | None = None

    def write(self, sealed: memoryview) -> None:
        """Write the next sealed bytes."""
        span = Span(self._position, self._position + len(sealed))
        for number, inside in split(span, PART_SIZE):
            if self._file is None:
                self._file = self._sink.open(self._name(number))
            self._file.write(sealed[: inside.length])
            sealed = sealed[inside.length :]
            self._position += inside.length
            if inside.stop == PART_SIZE:
                self.close()

    def close(self) -> None:
        """End the last part."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def discard(self) -> None:
        """Drop the part that is being written; those before it are whole."""
        file, self._file = self._file, None
        if file is not None:
            file.discard()
