"""The head of a tar stream as a map from the image to the stream: the way back of `tar`.

What may live here: reading one member's headers and maps, as any tar writes them. Pure: the
stream comes through a function, so the same code serves a pipe and random access, and only
headers and maps are ever asked for, never a byte of data. The bytes are untrusted: whatever
they are, the answer is a `Member` or a `BundleError`, in bounded memory.

Read are V7, ustar, GNU and PAX headers, and the four ways in which GNU tar writes holes: the
old GNU map behind a header of type S, and PAX 0.0, 0.1 and 1.0 [GNU tar, src/tar.h,
src/sparse.c; its manual, "Storing Sparse Files"; POSIX, pax]. In all four the data of each
extent is padded to a block, as GNU tar reads them; `size` counts it without the padding.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.sparse_map import BLOCK, MOST_EXTENTS, Extents, Hole, Run, Runs, too_many

__all__ = ["Hole", "Member", "Run", "Runs", "read_member", "trailing_ok"]

# 16 TiB: the largest file of ext4, and far below what would overflow an offset.
LARGEST_IMAGE = 16 << 40
LONGEST_BODY = 1 << 20
MOST_HEADERS = 32

Read = Callable[[int, int], bytes]

_REGULAR = (b"0", b"\0", b"7")
_SPARSE = b"S"
_PAX = (b"x", b"g", b"X")
_LONG_NAME = b"L"
_LONG_LINK = b"K"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a named pipe",
    b"D": "a directory with its listing",
    b"M": "the rest of a file of another volume",
    b"V": "a volume's label",
}
_ENTRIES_IN_HEADER = 4
_ENTRIES_IN_EXTENSION = 21
_ENTRY = 24
_OCTAL = re.compile(rb"[ \0]*([0-7]{1,12})[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_RECORD = re.compile(rb"([0-9]{1,7}) ([^=]+)=")
_LONGEST_NUMBER = 20
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Member:
    """The image in the archive.

    Attributes:
        name: of the member, for display alone. Bytes that are not UTF-8 are surrogates.
        size: of the image, holes included, bytes.
        runs: where its data stands; all else is zeros. Sorted and disjoint.
        end: the offset in the stream behind the member's data and padding.
    """

    name: str
    size: int
    runs: Runs
    end: int

    def pieces(self, span: Span) -> Iterator[Run | Hole]:
        """Give what makes up the bytes `span` of the image, in order, none of it empty.

        What lies beyond the end of the image is left out. Finding the first piece takes a
        binary search.
        """
        wanted = span.clip(Span(0, self.size))
        at = wanted.start
        for index in range(self.runs.at(at), len(self.runs)):
            run = self.runs[index]
            if run.image.start >= wanted.stop:
                break
            image = run.image.clip(wanted)
            if not image.length:
                continue  # it lies before what is wanted
            if at < image.start:
                yield Hole(image.start - at)
            yield Run(run.stream_offset + image.start - run.image.start, image)
            at = image.stop
        if at < wanted.stop:
            yield Hole(wanted.stop - at)


def read_member(read: Read) -> Member:
    """Read the headers of the first member, which must be a file.

    Args:
        read: gives `length` bytes of the stream from `offset`, fewer only where the stream
            ends. It is asked for headers and maps alone, in order and without gaps, and never
            for the data behind them.

    Raises:
        BundleError: it is not an archive, its first member is no file, or its map is not one.
    """
    stream = _Stream(read)
    header, extra = _headers(stream)
    name = _name(header, extra)
    _require_file(header.kind, name)
    stored = _decimal(extra.records[b"size"], "size") if b"size" in extra.records else header.size
    if header.kind == _SPARSE:
        extents = _old_gnu_map(stream, header.block)
    else:
        extents = _pax_map(stream, extra, stored) or Extents(stored).add(0, stored)
    runs = extents.runs(stream.at)
    extents.require_stored(stored - extents.in_data)
    return Member(name, extents.image_size, runs, stream.at + extents.padded)


def trailing_ok(data: bytes) -> bool:
    """Say whether `data` may follow the member: blocks of zeros, any number of them.

    Anything else is a second member, and a bundle has one.
    """
    return data.count(0) == len(data)


class _Stream:
    """The stream, read from its start."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        """Give the next `length` bytes, which are `what`."""
        data = self._read(self.at, length)
        if len(data) < length:
            raise BundleError(
                f"the archive ends within {what}: it has {len(data)} of {length} bytes at "
                f"{self.at}, so it is cut short or no archive"
            )
        self.at += length
        return data

    def take_body(self, size: int, what: str) -> bytes:
        """Give the next `size` bytes, and pass over what pads them to a block."""
        if size > LONGEST_BODY:
            raise BundleError(
                f"the archive's {what} has {size} bytes, and more than {LONGEST_BODY} are not read"
            )
        return self.take(ceil_div(size, BLOCK) * BLOCK, f"its {what}")[:size]


@dataclass(frozen=True, slots=True)
class _Header:
    kind: bytes
    size: int
    block: bytes = field(repr=False)


@dataclass(slots=True)
class _Extra:
    """What the headers before the member's own say of it."""

    name: bytes | None = None
    records: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[int] = field(default_factory=list)  # PAX 0.0: offset and length in turn

    def add(self, key: bytes, value: bytes) -> None:
        """Add a PAX record; a later one of the same key replaces an earlier [POSIX, pax]."""
        pair = {b"GNU.sparse.offset": 0, b"GNU.sparse.numbytes": 1}.get(key)
        if pair is None:
            self.records[key] = value
            return
        if len(self.sparse) % 2 != pair:
            raise BundleError(
                "the archive's sparse map is out of order: an offset and a length must take turns"
            )
        self.sparse.append(_decimal(value, key.decode()))


def _headers(stream: _Stream) -> tuple[_Header, _Extra]:
    """Read up to the member's own header, which it gives with what came before it."""
    extra = _Extra()
    for _ in range(MOST_HEADERS):
        header = _header(stream)
        if header.kind in _PAX:
            for key, value in _records(stream.take_body(header.size, "PAX header")):
                extra.add(key, value)
        elif header.kind == _LONG_NAME:
            extra.name = stream.take_body(header.size, "long name").rstrip(b"\0")
        elif header.kind == _LONG_LINK:
            stream.take_body(header.size, "long link name")
        else:
            return header, extra
    raise BundleError(f"the archive has {MOST_HEADERS} headers and no member behind them")


def _header(stream: _Stream) -> _Header:
    block = stream.take(BLOCK, "a header")
    if trailing_ok(block):
        raise BundleError("the archive is empty: it has no member, so there is no image in it")
    # The checksum counts itself as blanks; historic tars summed signed bytes [src/list.c].
    summed = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(summed)
    signed = unsigned - 256 * sum(byte > 127 for byte in summed)  # noqa: PLR2004 (a signed byte)
    found = _OCTAL.fullmatch(block[148:156])
    if not found or int(found[1], 8) not in (unsigned, signed):
        raise BundleError(
            f"the archive has no tar header at {stream.at - BLOCK}: its checksum "
            f"{_show(block[148:156])} is not {unsigned:o}; the decrypted data is no tar archive, "
            "or it is damaged"
        )
    kind = block[156:157]
    # What is refused for its type has no use for a size, and may have an odd one.
    size = 0 if kind in _REFUSED else _number(block[124:136], "size")
    return _Header(kind, size, block)


def _number(text: bytes, what: str) -> int:
    """Read a number of 12 bytes: octal, or base-256 from the topmost bit on [src/list.c]."""
    if text[0] & 0x80:
        value = int.from_bytes(text, "big") - (1 << 95)
        negative = bool(text[0] & 0x40)
        return _bounded(value - (1 << 95) if negative else value, what)
    found = _OCTAL.fullmatch(text)
    if not found:
        raise BundleError(f"the archive's {what} {_show(text)} is not a number")
    return _bounded(int(found[1], 8), what)


def _decimal(text: bytes, what: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise BundleError(f"the archive's {what} {_show(text)} is not a number")
    return _bounded(int(text), what)


def _bounded(value: int, what: str) -> int:
    if not 0 <= value <= LARGEST_IMAGE:
        raise BundleError(
            f"the archive's {what} {value} cannot be: it must be 0 to {LARGEST_IMAGE} bytes"
        )
    return value


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give key and value of each PAX record: `LENGTH KEY=VALUE` and a line feed [POSIX, pax]."""
    at = 0
    while at < len(body):
        found = _RECORD.match(body, at)
        stop = at + int(found[1]) if found else 0
        if not found or not found.end() < stop <= len(body) or body[stop - 1] != ord("\n"):
            raise BundleError(
                f"the archive's PAX header is damaged at {at}: {_show(body[at:])} is no record"
            )
        yield found[2], body[found.end() : stop - 1]
        at = stop


def _name(header: _Header, extra: _Extra) -> str:
    records = extra.records
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or extra.name
    if not name:
        name = header.block[:100].partition(b"\0")[0]
        # GNU headers, whose magic ends in blanks, have other fields in place of the prefix.
        prefix = header.block[345:500].partition(b"\0")[0]
        if prefix and header.block[257:263] == b"ustar\0":
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _require_file(kind: bytes, name: str) -> None:
    what = _REFUSED.get(kind, f"of the unknown type {kind!r}")
    if kind in (*_REGULAR, _SPARSE):
        if not name.endswith("/"):
            return
        what = _REFUSED[b"5"]  # as V7 wrote them, which has no type for it
    raise BundleError(
        f"the archive's member {_show(name)} is {what}: the image of a bundle is a regular file"
    )


def _old_gnu_map(stream: _Stream, block: bytes) -> Extents:
    """Read the map behind a header of type S: 4 entries, and 21 in each block that follows."""
    extents = Extents(_number(block[483:495], "real size"))
    more = _entries(extents, block[386:], _ENTRIES_IN_HEADER)
    while more:
        extension = stream.take(BLOCK, "its sparse map")
        more = _entries(extents, extension, _ENTRIES_IN_EXTENSION)
    return extents


def _entries(extents: Extents, table: bytes, count: int) -> bool:
    """Add the entries of a table; say whether another follows. The first blank ends the map."""
    more = bool(table[count * _ENTRY])
    for at in range(0, count * _ENTRY, _ENTRY):
        offset, length = table[at : at + 12], table[at + 12 : at + 24]
        if not length[0]:
            if more:
                raise BundleError("the archive's sparse map ends, and yet says that it goes on")
            return False
        extents.add(_number(offset, "sparse offset"), _number(length, "sparse length"))
    return more


def _pax_map(stream: _Stream, extra: _Extra, stored: int) -> Extents | None:
    """Read the map that PAX records give or announce; None if the member is not sparse."""
    records = extra.records
    major = records.get(b"GNU.sparse.major")
    if major is not None:
        version = (major, records.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            return _pax_map_in_data(stream, extra, stored)
        if major != b"0":
            raise BundleError(f"the archive's sparse map is of the unknown version {_show(major)}")
    if not extra.sparse and not {b"GNU.sparse.map", b"GNU.sparse.size"} & records.keys():
        return None
    return _pax_map_in_records(extra)


def _pax_map_in_records(extra: _Extra) -> Extents:
    """Read the map of PAX 0.0, a pair of records an extent, or of 0.1, one record for all."""
    extents = Extents(_real_size(extra, b"GNU.sparse.size"))
    text = extra.records.get(b"GNU.sparse.map")
    numbers = extra.sparse
    if text:
        numbers = [_decimal(each, "sparse map's") for each in text.split(b",")]
    if len(numbers) % 2:
        raise BundleError("the archive's sparse map is cut short: its last extent has no length")
    count = extra.records.get(b"GNU.sparse.numblocks")
    if count is not None and _decimal(count, "GNU.sparse.numblocks") != len(numbers) // 2:
        raise BundleError(
            f"the archive's sparse map has {len(numbers) // 2} extents, and its header announces "
            f"{_show(count)}"
        )
    for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
        extents.add(offset, length)
    return extents


def _pax_map_in_data(stream: _Stream, extra: _Extra, stored: int) -> Extents:
    """Read the map of PAX 1.0: lines before the data, padded to a block, and part of its size."""
    start = stream.at
    extents = Extents(_real_size(extra, b"GNU.sparse.realsize"))
    lines = _lines(stream, start + stored)
    count = next(lines)
    if count > MOST_EXTENTS:
        raise too_many()
    for _ in range(count):
        extents.add(next(lines), next(lines))
    extents.in_data = stream.at - start
    return extents


def _lines(stream: _Stream, stop: int) -> Iterator[int]:
    """Give the numbers on lines of their own, reading a block only when one is missing."""
    text = b""
    while True:
        line, end, rest = text.partition(b"\n")
        if end:
            text = rest
            yield _decimal(line, "sparse map's")
        elif len(text) > _LONGEST_NUMBER or stream.at + BLOCK > stop:
            raise BundleError(
                f"the archive's sparse map is damaged: {_show(text)} is followed by no line's end"
            )
        else:
            text += stream.take(BLOCK, "its sparse map")


def _real_size(extra: _Extra, key: bytes) -> int:
    text = extra.records.get(key)
    if text is None:
        raise BundleError(f"the archive's sparse map does not say the image's size: no {key!r}")
    return _decimal(text, key.decode())


def _show(text: str | bytes) -> str:
    """Quote what an untrusted archive says: escaped, on one line, shortened."""
    shown = repr(text[:_SHOWN])
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 2]}…{shown[-1]}"
