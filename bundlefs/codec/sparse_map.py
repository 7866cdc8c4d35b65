"""A sparse map: which bytes of an image stand where in a tar stream. It is compact and checked.

What may live here: the map as it is built, entry by entry, and as it is looked up. How a tar
stream writes it down is for `untar`. Entries are untrusted: one that is out of order or out of
range is refused, and their number is bounded.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.tar_format import BLOCK

# 24 bytes each in memory. As many as a 32 GiB image has at most, with holes of 4 KiB.
MOST_EXTENTS = 1 << 22


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of the image that stand in the stream.

    Attributes:
        stream_offset: where they start in the tar stream.
        image: which they are; never empty.
    """

    stream_offset: int
    image: Span


@dataclass(frozen=True, slots=True)
class Hole:
    """Zeros of the image that do not stand in the stream: `length` of them, 1 or more."""

    length: int


@dataclass(frozen=True, slots=True)
class Runs(Sequence[Run]):
    """Runs in the order of the image and of the stream, 24 bytes each. `read_member` makes them."""

    _data_at: int
    _image_at: "array[int]" = field(repr=False)
    _lengths: "array[int]" = field(repr=False)
    _stream_at: "array[int]" = field(repr=False)  # from _data_at

    def __len__(self) -> int:
        return len(self._image_at)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...
    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        start = self._image_at[index]
        span = Span(start, start + self._lengths[index])
        return Run(self._data_at + self._stream_at[index], span)

    def at(self, offset: int) -> int:
        """Return the index of the last run that starts at or before `offset` of the image, or 0.

        It takes a binary search.
        """
        return max(0, bisect_right(self._image_at, offset) - 1)

    def stored_in(self, span: Span) -> Iterator[Run]:
        """Yield what the bytes `span` of the stream hold of the image, in order: runs cut to it.

        Finding the first takes a binary search.
        """
        first = bisect_right(self._stream_at, span.start - self._data_at) - 1
        for index in range(max(0, first), len(self)):
            run = self[index]
            stored = Span(run.stream_offset, run.stream_offset + run.image.length)
            if stored.start >= span.stop:
                break
            part = stored.clip(span)
            if part.length:
                yield Run(part.start, part.shift(run.image.start - run.stream_offset))


class Extents:
    """A sparse map as it is read, its extents joined where they meet.

    Args:
        image_size: bytes, holes included.

    Attributes:
        image_size: the same.
        in_data: bytes of the map itself that count as the member's data.
        padded: bytes of the stream that the extents fill, each padded to a block.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.in_data = 0
        self.padded = 0
        self._stored = 0
        self._entries = 0
        self._end = 0
        self._image_at = array("q")
        self._lengths = array("q")
        self._stream_at = array("q")

    def add(self, offset: int, length: int) -> "Extents":
        """Add the next extent. An empty one says nothing, but must lie within the image."""
        self._require(offset, length)
        self._entries += 1
        if not length:
            return self
        # In the stream there is padding between two that meet, unless the first is whole blocks.
        if self._lengths and offset == self._end and self._lengths[-1] % BLOCK == 0:
            self._lengths[-1] += length
        else:
            self._image_at.append(offset)
            self._lengths.append(length)
            self._stream_at.append(self.padded)
        self._end = offset + length
        self._stored += length
        self.padded += ceil_div(length, BLOCK) * BLOCK
        return self

    def _require(self, offset: int, length: int) -> None:
        if self._entries >= MOST_EXTENTS:
            raise too_many()
        if offset + length > self.image_size:
            raise BundleError(
                f"the archive's sparse map goes beyond the image: {length} bytes at {offset}, of "
                f"an image of {self.image_size}"
            )
        if length and offset < self._end:
            raise BundleError(
                f"the archive's sparse map is out of order: an extent at {offset} follows one "
                f"that ends at {self._end}"
            )

    def require_stored(self, stored: int) -> None:
        """Refuse a map that does not account for the bytes that the header announces."""
        if stored != self._stored:
            raise BundleError(
                f"the archive's sparse map has {self._stored} bytes of data, and its header "
                f"{stored}"
            )

    def runs(self, data_at: int) -> Runs:
        """Return the runs; their data starts at `data_at` of the stream."""
        return Runs(data_at, self._image_at, self._lengths, self._stream_at)


def too_many() -> BundleError:
    """Return the error for a map that memory is not spent on."""
    return BundleError(
        f"the archive's sparse map has more than {MOST_EXTENTS} extents, and no more are read"
    )
