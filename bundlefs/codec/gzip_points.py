"""Random access to a gzip stream, by points where inflating may start.

`indexed_gzip` keeps access points: a bit offset, and the 32 KiB of content before it. Of the
libraries that do so it is the one whose memory grows neither with what is read nor with how well
that compresses (rapidgzip is twice as fast in the first pass, but took three times the memory of
the stream's chunks). It makes its points as far as somebody reads, and they may be kept for the
next time. Where somebody reads far ahead of them, `points_ahead` makes them faster.

Access points hold plain bytes of the image, so they are as private as a state.

Concurrency: any thread may read. A lock guards `indexed_gzip`, and `Recent` sees to it that no
chunk is inflated by two threads at once.
"""

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import indexed_gzip

from bundlefs.base.errors import BundlefsError
from bundlefs.base.progress import Wait
from bundlefs.base.recent import Recent
from bundlefs.base.spans import Span, joined, split
from bundlefs.codec import points_ahead
from bundlefs.codec.points_ahead import GzipStream

log = logging.getLogger(__name__)

SPACING = 4 << 20
_READ = 64 << 10
_CACHE_SIZE = 64 << 20
_FAR = 64 << 20
"""Bytes of content that are soon gone through."""


class Chunks:
    """Chunks of equal size. Each is made when it is needed, and those used last are kept."""

    def __init__(self, size: int, make: Callable[[int], bytes]) -> None:
        self._size = size
        self._recent = Recent(_CACHE_SIZE // size, make)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`, fewer where a chunk is short, as the last is."""
        pieces = []
        for number, span in split(Span(offset, offset + length), self._size):
            chunk = self._recent.get(number)
            pieces.append(chunk[span.start : span.stop])
            if len(chunk) < self._size:
                break
        return joined(pieces)


class GzipPoints:
    """The content of a gzip stream, of one member or several.

    Args:
        stream: the gzip stream.
        damaged: makes the error of what is wrong with it.
        spacing: bytes of content between two points.
        index: what `grown` returned at an earlier time.
        name: what people call the content.

    Attributes:
        wait: while a read goes through much that nobody has read before.
    """

    def __init__(
        self,
        stream: GzipStream,
        damaged: Callable[[str], BundlefsError],
        spacing: int = SPACING,
        index: bytes | None = None,
        name: object = "",
    ) -> None:
        self.wait: Wait | None = None
        self._name = name
        self._passed = 0
        self._lock = threading.Lock()
        self._damaged = damaged
        self._stream = _AsFile(stream)
        self._file = indexed_gzip.IndexedGzipFile(
            # Unless told otherwise it inflates four times the spacing at each read.
            fileobj=self._stream,
            spacing=spacing,
            buffer_size=SPACING,
            readbuf_size=_READ,
        )
        self._chunks = Chunks(SPACING, self._inflate)
        if index is not None:
            self._take(index)
        points = [offset for offset, _ in self._file.seek_points()]
        self._known, self._passed = len(points), max(points, default=0)

    def _take(self, index: bytes) -> None:
        try:
            self._file.import_index(fileobj=io.BytesIO(index))
        except indexed_gzip.ZranError as error:
            log.warning(
                "access points are made anew: those that were kept are of no use (%s)", error
            )

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`, fewer only at the end of the content.

        Raises:
            BundlefsError: the stream is damaged (the error is made by `damaged`), or reading it
                raised one.
            OSError: reading the stream raised one.
        """
        return self._chunks.read(offset, length)

    def is_near(self, offset: int) -> bool:
        """Return whether bytes at an offset are reached without going through much."""
        return offset < max(self._passed, _FAR)

    def _inflate(self, number: int) -> bytes:
        with self._lock, self._waited(number * SPACING):
            try:
                return self._piece(number)
            except BundlefsError:
                # Points are made ahead of what is asked for. If that met with damage further on,
                # the points before it are there now.
                return self._piece(number)

    @contextmanager
    def _waited(self, offset: int) -> Iterator[None]:
        """Tell of what is gone through before a read at this offset, if that is much."""
        if offset - self._passed < _FAR:
            yield
        else:
            with Wait(self._name, "first pass", self._stream.size) as wait:
                self.wait = self._stream.wait = wait
                try:
                    self._go_ahead(offset, wait)
                    yield
                finally:
                    self.wait = self._stream.wait = None
        self._passed = max(self._passed, offset)

    def _go_ahead(self, offset: int, wait: Wait) -> None:
        """Make the points up to an offset in the fast way; what it cannot do is left."""
        stream = self._stream.stream
        index = points_ahead.extended(self._exported(), stream, offset, wait.reached)
        if index:
            self._file.import_index(fileobj=_Joined(index.drained()))

    def _exported(self) -> bytes:
        if not self._points():
            self._piece(0)  # so that there is one
        buffer = io.BytesIO()
        self._file.export_index(fileobj=buffer)
        return buffer.getvalue()

    def _piece(self, number: int) -> bytes:
        self._stream.forget()
        try:
            self._file.seek(number * SPACING)
            data: bytes = self._file.read(SPACING)
        except OSError as error:  # all of its own errors are, but those of misuse
            if self._stream.error is not None:
                raise self._stream.error from None
            # What the library says of it depends on memory that it has not set.
            raise self._damaged(
                f"the gzip stream is damaged: its content cannot be inflated at {number * SPACING}"
            ) from error
        if self._stream.error is not None and len(data) < SPACING:
            raise self._stream.error  # it took what could not be read for the end
        return data

    def _points(self) -> int:
        return sum(1 for _ in self._file.seek_points())

    def grown(self) -> bytes | None:
        """Return the points for the next time, or None if there are no more than there were."""
        with self._lock:
            if self._points() <= self._known:
                return None
            buffer = io.BytesIO()
            self._file.export_index(fileobj=buffer)
            return buffer.getvalue()

    def close(self) -> None:
        """Let go of the stream."""
        with self._lock:
            self._file.close()


class _AsFile(io.RawIOBase):
    """The gzip stream as the seekable file that `indexed_gzip` wants.

    Attributes:
        error: of the last read that failed; `indexed_gzip` wraps it, or loses it.
        wait: who is told how far a read has got, if anybody is.
        stream: the gzip stream itself.
    """

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stream.size

    def __init__(self, stream: GzipStream) -> None:
        super().__init__()
        self.error: BundlefsError | OSError | None = None
        self.wait: Wait | None = None
        self.stream = stream
        self._position = 0

    def forget(self) -> None:
        """Forget the error of an earlier read."""
        self.error = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.stream.size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self.stream.size)
        try:
            data = self.stream.read(Span(self._position, max(stop, self._position)))
        except (BundlefsError, OSError) as error:
            self.error = error
            raise
        view[: len(data)] = data
        self._position += len(data)
        if self.wait:
            self.wait.reached(self._position)
        return len(data)


class _Joined(io.RawIOBase):
    """Pieces as the file that `indexed_gzip` reads an index from; each is forgotten once read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        found, self._left = self._left[:size], self._left[size:]
        return found
