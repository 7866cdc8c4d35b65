"""Tar headers, read from bytes that nobody vouches for: V7, ustar, GNU and PAX.

What may live here: the headers before a member's data, their numbers and their PAX records. Where
a member's data stands is for `untar`. Whatever the bytes are, the answer is a `Header` or a
`BundleError`, in bounded memory. [GNU tar, src/tar.h, src/list.c; POSIX, pax]
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bundlefs.base.errors import BundleError
from bundlefs.base.escapes import cite
from bundlefs.base.spans import ceil_div
from bundlefs.codec.tar_format import BLOCK

# 16 TiB: the largest file of ext4, and far below what would overflow an offset.
LARGEST_IMAGE = 16 << 40
LONGEST_BODY = 1 << 20
MOST_HEADERS = 32

Read = Callable[[int, int], bytes]
"""Returns so many bytes of the stream from an offset, fewer only where the stream ends."""

UNREAD_KINDS = {
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
"""Types of members that are no file, in words."""

_PAX = (b"x", b"g", b"X")
_LONG_NAME = b"L"
_LONG_LINK = b"K"
_OCTAL = re.compile(rb"[ \0]*([0-7]{1,12})[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_RECORD = re.compile(rb"([0-9]{1,7}) ([^=]+)=")

# Where the fields stand in a header [src/tar.h: posix_header].
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPE = slice(156, 157)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 500)


class HeadReader:
    """Reads headers and maps of the stream, in order from its start.

    Attributes:
        at: the offset that comes next.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        """Return the next `length` bytes; `what` they are is for the error."""
        data = self._read(self.at, length)
        if len(data) < length:
            raise BundleError(
                f"the archive ends within {what}: it has {len(data)} of {length} bytes at "
                f"{self.at}, so it is cut short or no archive"
            )
        self.at += length
        return data

    def take_body(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes, and pass over what pads them to a block."""
        if size > LONGEST_BODY:
            raise BundleError(
                f"the archive's {what} has {size} bytes, and more than {LONGEST_BODY} are not read"
            )
        return self.take(ceil_div(size, BLOCK) * BLOCK, f"its {what}")[:size]


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a member: its type, the size of what follows it, and the block it is in."""

    kind: bytes
    size: int
    block: bytes = field(repr=False)


@dataclass(slots=True)
class Extra:
    """What the headers before the member's own say of it.

    Attributes:
        name: of the member, from a GNU header.
        records: PAX records by key.
        sparse: offset and length in turn, from PAX records of the format 0.0.
    """

    name: bytes | None = None
    records: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[int] = field(default_factory=list)

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
        self.sparse.append(decimal(value, key.decode()))


def read_headers(stream: HeadReader) -> tuple[Header, Extra]:
    """Read up to the member's own header; return it and what the headers before it say."""
    extra = Extra()
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


def _header(stream: HeadReader) -> Header:
    block = stream.take(BLOCK, "a header")
    if not any(block):
        raise BundleError("the archive is empty: it has no member, so there is no image in it")
    # The checksum counts itself as blanks; historic tars summed signed bytes [src/list.c].
    summed = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    unsigned = sum(summed)
    signed = unsigned - 256 * sum(byte > 127 for byte in summed)  # noqa: PLR2004 (a signed byte)
    found = _OCTAL.fullmatch(block[_CHECKSUM])
    if not found or int(found[1], 8) not in (unsigned, signed):
        raise BundleError(
            f"the archive has no tar header at {stream.at - BLOCK}: its checksum "
            f"{cite(block[_CHECKSUM])} is not {unsigned:o}; the decrypted data is no tar archive, "
            "or it is damaged"
        )
    kind = block[_TYPE]
    # What is refused for its type has no use for a size, and may have an odd one.
    size = 0 if kind in UNREAD_KINDS else number(block[_SIZE], "size")
    return Header(kind, size, block)


def number(text: bytes, what: str) -> int:
    """Read a number of 12 bytes: octal, or base-256 if its topmost bit is set [src/list.c].

    Base-256 is big-endian two's complement; the bit that marks it, 2^95, is no part of the value,
    and the bit below it is the sign.
    """
    if text[0] & 0x80:
        value = int.from_bytes(text, "big") - (1 << 95)
        negative = bool(text[0] & 0x40)
        return _bounded(value - (1 << 95) if negative else value, what)
    found = _OCTAL.fullmatch(text)
    if not found:
        raise BundleError(f"the archive's {what} {cite(text)} is not a number")
    return _bounded(int(found[1], 8), what)


def decimal(text: bytes, what: str) -> int:
    """Read a decimal number; `what` it is is for the error."""
    if not _DECIMAL.fullmatch(text):
        raise BundleError(f"the archive's {what} {cite(text)} is not a number")
    return _bounded(int(text), what)


def _bounded(value: int, what: str) -> int:
    if not 0 <= value <= LARGEST_IMAGE:
        raise BundleError(
            f"the archive's {what} {value} cannot be: it must be 0 to {LARGEST_IMAGE} bytes"
        )
    return value


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each PAX record: `LENGTH KEY=VALUE` and a line feed [POSIX, pax]."""
    at = 0
    while at < len(body):
        found = _RECORD.match(body, at)
        stop = at + int(found[1]) if found else 0
        if not found or not found.end() < stop <= len(body) or body[stop - 1] != ord("\n"):
            raise BundleError(
                f"the archive's PAX header is damaged at {at}: {cite(body[at:])} is no record"
            )
        yield found[2], body[found.end() : stop - 1]
        at = stop


def name_of(header: Header, extra: Extra) -> str:
    """Return the name of the member; bytes that are not UTF-8 are surrogates."""
    records = extra.records
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or extra.name
    if not name:
        name = header.block[_NAME].partition(b"\0")[0]
        # GNU headers, whose magic ends in blanks, have other fields in place of the prefix.
        prefix = header.block[_PREFIX].partition(b"\0")[0]
        if prefix and header.block[_MAGIC] == b"ustar\0":
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")
