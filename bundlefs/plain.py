"""Random access to the tar stream of a bundle that is there.

Two ways to a point of the gzip stream. For a bundle of bundlefs' own whose state
is at hand, the index knows where each block begins, and blocks inflate alone.
For any other, `indexed_gzip` keeps access points (a bit offset and the 32 KiB
before) every 4 MiB: of the libraries that do so it is the one whose memory does
not grow with what is read or with how well it compresses (rapidgzip is twice as
fast in the first pass, and took three times the memory of the stream's chunks).
It makes its points as far as somebody reads, and they are kept for the next time.

Access points hold plain bytes of the image, so they are as private as a state.

Concurrency: any thread may read. One lock around `indexed_gzip`, one around the
chunks that were inflated last.
"""

import hashlib
import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import indexed_gzip
from isal import igzip_lib

from bundlefs import statefile
from bundlefs.codec.deflate import BLOCK_SIZE, crc32
from bundlefs.errors import BundleError, StateError
from bundlefs.index import Index
from bundlefs.spans import Span, split
from bundlefs.unseal import Unsealed

log = logging.getLogger(__name__)

SPACING = 4 << 20
_READ = 64 << 10
_CACHE_SIZE = 64 << 20
_CHECKSUM = 32


class Plain(Protocol):
    """The tar stream by offset."""

    def read(self, offset: int, length: int) -> bytes:
        """Give up to `length` bytes at `offset`, fewer only at the end of the stream."""

    def close(self) -> None:
        """Let go of it, and keep what serves the next time."""


class _Chunks:
    """Chunks of equal size, each made when it is first needed, the last ones used kept."""

    def __init__(self, size: int, make: Callable[[int], bytes]) -> None:
        self._size = size
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def read(self, offset: int, length: int) -> bytes:
        pieces = []
        for number, span in split(Span(offset, offset + length), self._size):
            chunk = self._chunk(number)
            pieces.append(chunk[span.start : span.stop])
            if len(chunk) < self._size:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _chunk(self, number: int) -> bytes:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        # Two readers may make one chunk at a time; neither waits for the other's.
        chunk = self._make(number)
        with self._lock:
            self._kept[number] = chunk
            while len(self._kept) * self._size > _CACHE_SIZE:
                self._kept.popitem(last=False)
        return chunk


class PlainByBlocks:
    """A bundle of bundlefs' own, by the index of its state."""

    def __init__(self, unsealed: Unsealed, index: Index) -> None:
        self._unsealed = unsealed
        self._index = index
        self._chunks = _Chunks(BLOCK_SIZE, self._inflate)

    def read(self, offset: int, length: int) -> bytes:
        """Give up to `length` bytes at `offset`."""
        return self._chunks.read(offset, length)

    def _inflate(self, block: int) -> bytes:
        if block >= self._index.blocks:
            return b""
        deflated = self._unsealed.read(self._index.gzip_span(block))
        decoder = igzip_lib.IgzipDecompressor()
        try:
            plain = decoder.decompress(deflated, BLOCK_SIZE)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance
            raise BundleError(f"block {block} of the bundle is damaged: {error}") from error
        if crc32(plain) != self._index.crc(block):
            raise BundleError(f"block {block} of the bundle is not what its state says")
        return plain

    def close(self) -> None:
        """Nothing is kept: the state has it all."""


class PlainByPoints:
    """Any bundle, by access points, which are kept in a file of their own if `kept` names one."""

    def __init__(self, unsealed: Unsealed, kept: Path | None) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._file = indexed_gzip.IndexedGzipFile(
            # Unless told otherwise it inflates four times the spacing at each read.
            fileobj=_AsFile(unsealed),
            spacing=SPACING,
            buffer_size=SPACING,
            readbuf_size=_READ,
        )
        self._chunks = _Chunks(SPACING, self._inflate)
        self._known = self._load(kept) if kept is not None else 0

    def read(self, offset: int, length: int) -> bytes:
        """Give up to `length` bytes at `offset`."""
        return self._chunks.read(offset, length)

    def _inflate(self, number: int) -> bytes:
        with self._lock:
            try:
                return self._piece(number)
            except BundleError:
                # Points are made ahead of what is asked for. If that met with damage further on,
                # the points before it are there now.
                return self._piece(number)

    def _piece(self, number: int) -> bytes:
        try:
            self._file.seek(number * SPACING)
            data: bytes = self._file.read(SPACING)
        except OSError as error:  # all of its own errors are, but those of misuse
            # What a part's reader has to say comes through a read as the cause.
            if isinstance(error.__cause__, BundleError):
                raise error.__cause__ from None
            raise BundleError(f"the gzip stream is damaged: {error}") from error
        return data

    def _points(self) -> int:
        return sum(1 for _ in self._file.seek_points())

    def _load(self, path: Path) -> int:
        """Take up the points of an earlier time; give how many there are."""
        try:
            data = statefile.read_private(path)
            if data is None:
                return 0
            points, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
            if hashlib.sha256(points).digest() == checksum:
                self._file.import_index(fileobj=io.BytesIO(points))
            else:
                log.warning("access points are made anew: the checksum of %s does not fit", path)
        except (StateError, indexed_gzip.ZranError) as error:
            log.warning("access points are made anew: %s", error)
        return self._points()

    def close(self) -> None:
        """Keep the access points, if there are more than there were."""
        with self._lock:
            if self._kept is not None and self._points() > self._known:
                buffer = io.BytesIO()
                self._file.export_index(fileobj=buffer)
                data = buffer.getvalue()
                try:
                    statefile.make_folder(self._kept.parent)
                    statefile.replace(self._kept, data + hashlib.sha256(data).digest())
                except (OSError, StateError) as error:
                    log.warning("cannot keep the access points in %s: %s", self._kept, error)
            self._file.close()


class _AsFile(io.RawIOBase):
    """The gzip stream as the seekable file that `indexed_gzip` wants."""

    def __init__(self, unsealed: Unsealed) -> None:
        super().__init__()
        self._unsealed = unsealed
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._unsealed.size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._unsealed.size)
        data = self._unsealed.read(Span(self._position, max(stop, self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
