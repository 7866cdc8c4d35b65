"""From the gzip stream to the tar stream in one pass, by several segments at a time if it can be.

bundlefs deflates a bundle in blocks that do not need each other. So the stream is cut where such a
block may end, and the segments are inflated at the same time. Whether they were cut in the right
places shows when they are put together, in order: one counts only if the one before it ended
where it begins. The first begins behind the header, so the content of all that count is proven,
block by block, to be what a decoder finds that goes through the stream from its start.

Where that does not hold, the cut may have been wrong, or what is behind it needs what is before. So
it is inflated once more, with the content before it known by now, and joined with the next segments
until they end where a block does. Whatever it is besides, the end of the member or damage or a
stream that another tool made, the decoder that goes through it in order takes over at the last
place that was proven, and says what is to be said.

Concurrency: segments are inflated on the pool; one thread takes the content.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from bundlefs.base.ordered import InOrder
from bundlefs.base.workers import Workers
from bundlefs.codec import members, segments
from bundlefs.codec.deflate import GZIP_HEADER, crc32_join
from bundlefs.codec.members import PIECE, Decoder
from bundlefs.codec.resumed import WINDOW, ResumedMember
from bundlefs.codec.segments import Decoded
from bundlefs.unbundling.unseal import GzipPieces, inflated

_BUFFERS = 24
_MOST_JOINED = 4
"""Segments. By chance there is one wrong cut in 4 GiB, so several side by side are none."""

_LONGEST_JOINED = 4 << 20
"""Bytes that are joined, and then what is behind them, at the most."""

_Tried = tuple[memoryview, Decoded | None]


def inflated_apart(pieces: Iterator[memoryview], workers: Workers) -> Iterator[bytes | memoryview]:
    """Inflate a gzip stream, members joined, in pieces of a bit more than 1 MiB at most.

    Args:
        pieces: the stream. They must be writable, and are not changed.
        workers: whose pool inflates.

    Raises:
        BundleError: it is damaged, or ends too early.
    """
    first = next(pieces, memoryview(b""))
    if _made_in_blocks(first):
        return _Inflating(chain((first[len(GZIP_HEADER) :],), pieces), workers).pieces()
    return inflated(_in_small(chain((first,), pieces)))


def _made_in_blocks(first: memoryview) -> bool:
    """Return whether a stream may be one that bundlefs made: its header, and a place to cut it."""
    return first[: len(GZIP_HEADER)] == GZIP_HEADER and any(True for _ in segments.places(first))


class _Inflating:
    """A member whose header was taken off, and what is behind it."""

    def __init__(self, pieces: Iterator[memoryview], workers: Workers) -> None:
        self._buffers = segments.make_buffers(_BUFFERS)
        self._guessing = True
        self._tried: InOrder[_Tried] = workers.in_order(
            partial(self._try, segment) for segment in _segments(pieces)
        )
        # What was proven so far.
        self._window = b""
        self._crc = 0
        self._size = 0

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the content."""
        for segment, decoded in self._tried:
            if decoded is None:
                decoded, segment = self._mended(segment)  # noqa: PLW2901  # with what it was joined to
            if decoded is None:
                yield from self._in_order(segment)
                return
            yield from self._counted(decoded)
        # Every segment counts, and none is final: what is behind them is missing.
        yield from self._in_order(memoryview(b""))

    def _try(self, segment: memoryview) -> _Tried:
        return segment, segments.decode(segment, self._buffers) if self._guessing else None

    def _counted(self, decoded: Decoded) -> list[memoryview]:
        """Count a segment's content as proven, and return it."""
        self._crc = crc32_join(self._crc, decoded.crc, decoded.size)
        self._size += decoded.size
        for piece in decoded.pieces:
            self._window = (self._window + bytes(piece[-WINDOW:]))[-WINDOW:]
        return decoded.pieces

    def _mended(self, segment: memoryview) -> tuple[Decoded | None, memoryview]:
        """Inflate a segment with what is known of the content before it, and if need be of it.

        It is joined with those behind it until they are one. Return that, and all that were joined.
        """
        for _ in range(_MOST_JOINED):
            if decoded := segments.decode(segment, self._buffers, self._window):
                return decoded, segment
            more = next(self._tried, None) if len(segment) < _LONGEST_JOINED else None
            if more is None:
                break
            segment = memoryview(bytearray().join((segment, more[0])))
        return None, segment

    def _in_order(self, segment: memoryview) -> Iterator[bytes]:
        """Inflate from the last place that was proven to the end of the stream."""
        self._guessing = False
        rest = _in_small(chain((segment,), (each for each, _ in self._tried)))
        begun: list[Callable[[], Decoder]] = [
            partial(ResumedMember, self._window, self._crc, self._size)
        ]
        return members.inflated(
            GzipPieces(rest), lambda: begun.pop()() if begun else members.gzip_decoder()
        )


def _segments(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """Cut the stream where a block may end; what holds no such place is a segment."""
    left = memoryview(bytearray())
    for piece in pieces:
        start = 0
        for place in segments.places(piece):
            yield _joined(left, piece[start:place])
            left, start = memoryview(bytearray()), place
        left = _joined(left, piece[start:])
        if not start:
            yield left
            left = memoryview(bytearray())
    yield left


def _in_small(pieces: Iterator[memoryview]) -> Iterator[bytes]:
    """Copy the stream in pieces of 1 MiB at most: the decoder keeps what it has no use for yet."""
    for piece in pieces:
        for start in range(0, len(piece), PIECE):
            yield bytes(piece[start : start + PIECE])


def _joined(first: memoryview, second: memoryview) -> memoryview:
    return memoryview(bytearray().join((first, second))) if first else second
