"""The tar stream as a layout: which of its bytes are fixed, and which come from where in the image.

Pure arithmetic: no file is opened or read here, and the image is never needed to lay it
out. An image without holes becomes a plain member; one with holes an old-style GNU sparse
member, byte for byte as `tar --format=gnu -S --hole-detection=seek` of GNU tar 1.34 writes
it [GNU tar, src/sparse.c: oldgnu_dump_header, sparse_scan_file_seek; src/tar.h].

What GNU tar does, checked against it in tests/interop/test_tar_gnu.py:
- The map has one entry for each extent of data, as SEEK_DATA and SEEK_HOLE give them, and
  always a last empty one at the end of the file, whether a hole or data comes before it.
- 4 entries stand in the header, 21 in each extension block.
- `size` is the sum of the data, `realsize` the size of the file. Numbers from 8 GiB up are
  base-256, in the map too.
- Data is padded to 512 bytes after each extent.
- `-S` looks for holes only in a file of a block or more, and only if fewer blocks are allocated
  than its size needs. Here the holes decide, and not what else the file system allocated.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bundlefs.base.errors import InconsistentError, UsageError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.tar_format import BLOCK, ENTRIES_IN_EXTENSION, ENTRIES_IN_HEADER, ENTRY, SPARSE

RECORD = 20 * BLOCK
NAME_LIMIT = 100

_PLAIN = b"0"
_OCTAL_LIMIT = 8**11

# Name, mode, owner, group, size, mtime, checksum, type, link name, magic and version, owner's
# name, group's name, and what differs between plain and sparse [src/tar.h: posix_header]
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 183s")
# What differs if sparse: device numbers and times (unused), map, isextended, realsize
# [src/tar.h: oldgnu_header]
_SPARSE_REST = struct.Struct("57x 96s ? 12s 17x")
# An extension block: map and isextended [src/tar.h: sparse_header]
_EXTENSION = struct.Struct("504s ? 7x")


@dataclass(frozen=True, slots=True)
class Literal:
    """A run of the tar stream that is not in the image: header, map or padding."""

    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        """Number of bytes, 1 or more."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class FromImage:
    """A run of the tar stream that is the bytes `span` of the image."""

    span: Span

    @property
    def length(self) -> int:
        """Number of bytes, 1 or more."""
        return self.span.length


Piece = Literal | FromImage


@dataclass(frozen=True, slots=True)
class TarLayout:
    """Where every byte of the tar stream comes from. `layout` makes it.

    Attributes:
        size: bytes of the whole stream, a multiple of the 10,240 of a record.
        image_size: bytes of the image, holes included.
        sparse: whether the member is a GNU sparse one.
        head: header and map, a multiple of 512 bytes.
    """

    size: int
    image_size: int
    sparse: bool
    head: bytes = field(repr=False)
    # Flat arrays: 16 bytes an extent. Extent i is at _image_at[i] of the image and fills
    # _stream_at[i] to _stream_at[i + 1] of the stream. Quoted: Python 3.11 has no array[int].
    _stream_at: "array[int]" = field(repr=False, compare=False)
    _image_at: "array[int]" = field(repr=False, compare=False)

    def pieces(self, span: Span) -> Iterator[Piece]:
        """Yield the pieces that make up the bytes `span` of the stream, in order, none empty.

        What lies beyond the end of the stream is left out. Finding the first piece takes a
        binary search, so that a call costs no more at the end of a long map.
        """
        head = span.clip(Span(0, len(self.head)))
        if head.length:
            yield Literal(self.head[head.start : head.stop])
        data_end = self._stream_at[-1]
        yield from self._data(span.clip(Span(len(self.head), data_end)))
        padding = span.clip(Span(data_end, self.size))
        if padding.length:
            yield Literal(bytes(padding.length))

    def _data(self, span: Span) -> Iterator[FromImage]:
        index = bisect_right(self._stream_at, span.start) - 1
        at = span.start
        while at < span.stop:
            stop = min(span.stop, self._stream_at[index + 1])
            yield FromImage(Span(at, stop).shift(self._image_at[index] - self._stream_at[index]))
            at = stop
            index += 1


def layout(name: str, image_size: int, mtime: int, extents: Sequence[Span] | None) -> TarLayout:
    """Lay out the archive of one image: mode 0644, owner and group 0, `root`.

    Args:
        name: of the member, at most 100 bytes.
        image_size: bytes.
        mtime: of the member, in seconds since 1970.
        extents: where the image has data, sorted and disjoint; all else is zeros. None: all of
            it is data.

    Raises:
        UsageError: the name does not fit.
        InconsistentError: the extents are out of order or not within the image.
    """
    member = _member_name(name)
    if extents is None or image_size < BLOCK:
        data = [Span(0, image_size)]
    else:
        data = list(_aligned(extents, image_size))
    data_size = sum(extent.length for extent in data)
    sparse = data_size < image_size
    rest, extensions = _sparse_map(data, image_size) if sparse else (b"", b"")
    head = _header(member, data_size, mtime, SPARSE if sparse else _PLAIN, rest) + extensions
    # Two blocks of zeros end an archive, more of them fill its record [src/buffer.c: write_eot].
    needed = len(head) + ceil_div(data_size, BLOCK) * BLOCK + 2 * BLOCK
    size = ceil_div(needed, RECORD) * RECORD
    image_at = array("q", (extent.start for extent in data))
    return TarLayout(size, image_size, sparse, head, _stream_offsets(len(head), data), image_at)


def _member_name(name: str) -> bytes:
    member = name.encode("utf-8", "surrogateescape")
    if not member or len(member) > NAME_LIMIT or b"\0" in member:
        raise UsageError(
            f"the name {name!r} cannot stand in a tar header: it is {len(member)} bytes long; "
            f"give one of 1 to {NAME_LIMIT} bytes, none of them zero"
        )
    return member


def _aligned(extents: Iterable[Span], image_size: int) -> Iterator[Span]:
    """Widen extents to blocks of 512 and join those that then meet.

    GNU tar pads each extent to 512 bytes but counts only its own bytes in `size`, so readers
    that go by `size` would lose their place after an unaligned one. Those of file systems are
    aligned, and are left alone; the end of the image stays as it is.
    """
    run = Span(0, 0)
    for extent in _ordered(extents, image_size):
        wide = Span(
            extent.start - extent.start % BLOCK,
            min(ceil_div(extent.stop, BLOCK) * BLOCK, image_size),
        )
        if wide.start <= run.stop:
            run = Span(run.start, wide.stop)
            continue
        if run.length:
            yield run
        run = wide
    if run.length:
        yield run


def _ordered(extents: Iterable[Span], image_size: int) -> Iterator[Span]:
    end = 0
    for extent in extents:
        if not end <= extent.start < extent.stop <= image_size:
            raise InconsistentError(
                f"the image's extent {extent.start}-{extent.stop} is empty, out of order (after "
                f"{end}) or beyond the image's {image_size} bytes; read the extents again"
            )
        yield extent
        end = extent.stop


def _stream_offsets(start: int, data: Iterable[Span]) -> "array[int]":
    """Return where each extent starts in the stream, and at last where they end."""
    offsets = array("q", [start])
    for extent in data:
        offsets.append(offsets[-1] + extent.length)
    return offsets


def _header(name: bytes, size: int, mtime: int, kind: bytes, rest: bytes) -> bytes:
    block = _HEADER.pack(
        name,
        b"0000644",
        b"0000000",
        b"0000000",
        _number(size),
        _number(mtime),
        b" " * 8,  # the checksum counts itself as blanks
        kind,
        b"",
        b"ustar  ",
        b"root",
        b"root",
        rest,
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _sparse_map(data: Iterable[Span], image_size: int) -> tuple[bytes, bytes]:
    """Return the sparse part of the header, and the extension blocks that follow it."""
    entries = b"".join(_number(extent.start) + _number(extent.length) for extent in data)
    entries += _number(image_size) + _number(0)
    first, more = entries[: ENTRIES_IN_HEADER * ENTRY], entries[ENTRIES_IN_HEADER * ENTRY :]
    rest = _SPARSE_REST.pack(first, bool(more), _number(image_size))
    step = ENTRIES_IN_EXTENSION * ENTRY
    extensions = (
        _EXTENSION.pack(more[at : at + step], at + step < len(more))
        for at in range(0, len(more), step)
    )
    return rest, b"".join(extensions)


def _number(value: int) -> bytes:
    """Write a 12-byte number: octal, or base-256 if that does not fit [src/create.c: to_chars]."""
    if 0 <= value < _OCTAL_LIMIT:
        return b"%011o\0" % value
    # Big-endian two's complement; the topmost bit, which the sign does not need, marks the form.
    return (value % (1 << 96) | 1 << 95).to_bytes(12, "big")
