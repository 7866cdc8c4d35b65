"""Access points of a gzip stream, made in a third of the time that `indexed_gzip` takes for them.

`indexed_gzip` reads, inflates by libz and checks on one thread. Here the stream is read by another
thread, ahead, and zlib-ng inflates it. What comes out is `indexed_gzip`'s own index
[indexed_gzip, zran.c, zran_export_index]: points in order, then the 32 KiB of content before each.

Whatever is amiss ends this, and nothing is told of it: `indexed_gzip` goes on at the last point,
meets the same, and says so. A checksum that does not hold is met only by who goes through all of
the stream, so no point is kept then.

Concurrency: for one thread at a time.
"""

import ctypes
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol

from bundlefs.base.errors import BundlefsError
from bundlefs.base.ordered import InOrder
from bundlefs.base.spans import Span, split
from bundlefs.base.threads import Threads, asking_storage
from bundlefs.codec import final_block
from bundlefs.codec.resumed import WINDOW

_MAGIC = b"GZIDX\x01\x00"
_HEAD = struct.Struct("<QQIII")
_POINT = struct.Struct("<QQBB")
_OUT = 1 << 20
_READ = 1 << 20
_READS = 4
_BEYOND = 8 << 20
"""Bytes of content behind what is asked for that are gone through."""

_GZIP, _RAW = 31, -15  # windowBits
_Z_OK, _Z_STREAM_END, _Z_BUF_ERROR = 0, 1, -5
_Z_BLOCK = 5
_UNUSED_BITS = 7
_WAS_FINAL = 64
_AT_BOUNDARY = 128


@dataclass(frozen=True, slots=True)
class Point:
    """Where inflating may start.

    Attributes:
        packed: offset in the gzip stream of the first byte that is all of it behind the point.
        plain: offset in the content.
        bits: how many bits of the byte before are behind the point too.
        window: the content before it, `WINDOW` bytes; none at the start.
    """

    packed: int
    plain: int
    bits: int
    window: bytes = field(repr=False)


class GzipStream(Protocol):
    """A gzip stream by offset."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, span: Span) -> bytes:
        """Read bytes within the stream."""


class Index:
    """An index of `indexed_gzip`, as a file that it reads.

    Attributes:
        spacing: bytes of content between two points.
        points: in order.

    Raises:
        ValueError, struct.error: `exported` is none.
    """

    def __init__(self, exported: bytes) -> None:
        if not exported.startswith(_MAGIC):
            raise ValueError("not an index of this version")
        at = len(_MAGIC)
        *self._sizes, self.spacing, self._window, count = _HEAD.unpack_from(exported, at)
        at += _HEAD.size
        stop = at + count * _POINT.size
        table = list(_POINT.iter_unpack(exported[at:stop]))
        self.points: list[Point] = []
        for packed, plain, bits, has_window in table:
            window = exported[stop : stop + WINDOW] if has_window else b""
            self.points.append(Point(packed, plain, bits, window))
            stop += len(window)
        if stop != len(exported) or self._window != WINDOW:
            raise ValueError("its windows are not what they are to be")

    def fits(self, size: int) -> bool:
        """Whether the points follow each other in a stream of `size` bytes.

        Of a damaged stream, `indexed_gzip` may make one at any offset.
        """
        places = [(point.packed, point.plain) for point in self.points]
        return all(
            packed <= size and packed >= before and plain >= shown
            for (before, shown), (packed, plain) in pairwise([(0, 0), *places])
        )

    def drained(self) -> Iterator[bytes]:
        """Yield the index with all points that it has by now, and let go of each on the way.

        So whoever takes them over does not have them in memory beside these.
        """
        yield _MAGIC + _HEAD.pack(*self._sizes, self.spacing, self._window, len(self.points))
        for point in self.points:
            yield _POINT.pack(point.packed, point.plain, point.bits, bool(point.window))
        self.points.reverse()
        while self.points:
            yield self.points.pop().window


class PointMaker:
    """Inflates a gzip stream to find points in it, `spacing` bytes of content apart or more.

    It begins at `start`, or without one at the start of the stream.

    Attributes:
        made: the points.
        position: how much content was gone through.
        ended: whether the member has ended and its checksum holds.
        failed: whether it is damaged.
    """

    def __init__(self, spacing: int, start: Point | None, before: bytes) -> None:
        self.made: list[Point] = []
        self.position = start.plain if start else 0
        self.ended = self.failed = False
        self._spacing = spacing
        self._packed = start.packed if start else 0
        self._last: int | None = start.plain if start else None
        self._zlib = final_block.load()
        self._stream = final_block.ZStream()
        self._pointer = ctypes.pointer(self._stream)
        self._out = bytearray(WINDOW + _OUT)
        self._filled = WINDOW
        self._begin(start, before)

    def _begin(self, start: Point | None, before: bytes) -> None:
        self.failed = self._zlib.start(self._pointer) != _Z_OK
        weakref.finalize(self, self._zlib.end, self._pointer)
        self._zlib.reset_to(self._pointer, _RAW if start else _GZIP)
        if start is None:
            return
        if start.bits:
            self._zlib.prime(self._pointer, start.bits, before[0] >> 8 - start.bits)
        self._zlib.set_window(self._pointer, start.window, len(start.window))
        self._out[WINDOW - len(start.window) : WINDOW] = start.window

    def feed(self, data: bytes) -> None:
        """Go through the next bytes of the stream, unless it has ended or failed."""
        stream = self._stream
        stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        stream.avail_in = len(data)
        while not (self.ended or self.failed):
            self._step()
            if stream.data_type & _AT_BOUNDARY and not stream.data_type & _WAS_FINAL:
                self._mark(self._packed + len(data) - stream.avail_in)
            if not stream.avail_in and self._filled < len(self._out):
                break
        self._packed += len(data)

    def _step(self) -> None:
        """Inflate up to the end of a deflate block, of the input, or of the buffer."""
        if self._filled == len(self._out):
            self._out[:WINDOW] = self._out[-WINDOW:]
            self._filled = WINDOW
        stream = self._stream
        room = len(self._out) - self._filled
        stream.next_out, stream.avail_out = final_block.address(self._out) + self._filled, room
        code = self._zlib.inflate(self._pointer, _Z_BLOCK)
        made = room - stream.avail_out
        self._filled, self.position = self._filled + made, self.position + made
        self.ended = code == _Z_STREAM_END
        self.failed = code not in (_Z_OK, _Z_STREAM_END, _Z_BUF_ERROR)

    def _mark(self, packed: int) -> None:
        """Make a point here if the last one is far enough away."""
        if self._last is None:
            window = b""
        elif self.position - self._last >= self._spacing:
            window = bytes(self._out[self._filled - WINDOW : self._filled])
        else:
            return
        self._last = self.position
        bits = self._stream.data_type & _UNUSED_BITS
        self.made.append(Point(packed, self.position, bits, window))


def extended(
    exported: bytes, stream: GzipStream, offset: int, told: Callable[[int], None]
) -> Index | None:
    """Return an index that leads to an offset of the content, or None if nothing was gained.

    What is between is gone through, and a bit more, to see the checksum if the end is near.

    Args:
        exported: the index so far.
        stream: the gzip stream.
        offset: of the content.
        told: is told how far in the stream it has got.
    """
    try:
        index = Index(exported)
    except (ValueError, struct.error):
        return None  # of a version to come
    if not index.fits(stream.size):
        return None
    last = index.points[-1] if index.points and index.points[-1].plain else None
    start = last.packed if last else 0
    before = stream.read(Span(start - 1, start)) if last and last.bits else b""
    maker = PointMaker(index.spacing, last, before)
    with suppress(BundlefsError, OSError), _Ahead(stream, start) as pieces:
        for piece in pieces:
            maker.feed(piece)
            start += len(piece)
            told(start)
            if maker.ended or maker.failed or maker.position > offset + _BEYOND:
                break
    if maker.failed:
        return None
    index.points = (index.points if last else []) + maker.made
    return index


class _Ahead:
    """A stream from an offset on, in pieces that another thread reads ahead; a context manager."""

    def __init__(self, stream: GzipStream, start: int) -> None:
        self._threads = Threads(1, "ahead")
        whole = Span(start, stream.size)
        spans = (span.shift(number * _READ) for number, span in split(whole, _READ))
        begins = (partial(self._threads.submit, partial(_read, stream, span)) for span in spans)
        self._found = InOrder(begins, lambda: _READS)

    def __enter__(self) -> Iterator[bytes]:
        return self._found

    def __exit__(self, *_: object) -> None:
        # A read that is under way ends by itself; nobody waits for storage.
        self._threads.shut()


def _read(stream: GzipStream, span: Span) -> bytes:
    with asking_storage():
        return stream.read(span)
