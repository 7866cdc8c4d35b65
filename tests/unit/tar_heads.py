"""Tar heads of every format, made here byte by byte, and what is read of them."""

import tarfile
from collections.abc import Iterable, Sequence

from bundlefs.codec.untar import Member, read_member

BLOCK = 512


def member_of(stream: bytes) -> Member:
    """Read the one member of a tar stream."""
    return read_member(lambda offset, length: stream[offset : offset + length])


def padded(data: bytes) -> bytes:
    """Fill up the last block."""
    return data + bytes(-len(data) % BLOCK)


def stock_header(size: int, kind: bytes = b"0", name: str = "image") -> bytes:
    """Return a header as Python's tarfile makes it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "target"
    return info.tobuf(tarfile.GNU_FORMAT)


def summed(block: bytes) -> bytes:
    """Give a header its checksum."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def edited(header: bytes, **fields: bytes) -> bytes:
    """Replace fields of a header, and correct its checksum."""
    places = {
        "name": 0,
        "size": 124,
        "kind": 156,
        "magic": 257,
        "prefix": 345,
        "map": 386,
        "extended": 482,
        "realsize": 483,
    }
    block = bytearray(header)
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    return summed(bytes(block))


def octal(value: int) -> bytes:
    """Return a number as most writers have it."""
    return b"%011o\0" % value


def base256(value: int) -> bytes:
    """Return a number as GNU tar has those that are too large, and negative ones."""
    return (value % (1 << 96) | 1 << 95).to_bytes(12, "big")


def entries(extents: Iterable[tuple[int, int]]) -> bytes:
    """Return a map as old GNU headers have it."""
    return b"".join(octal(offset) + octal(length) for offset, length in extents)


def sparse_header(
    extents: Sequence[tuple[int, int]], size: int, stored: int | None = None
) -> bytes:
    """Return an old GNU sparse header with up to 4 extents."""
    total = sum(length for _, length in extents) if stored is None else stored
    return edited(
        stock_header(total, b"S"), map=entries(extents), extended=b"\0", realsize=octal(size)
    )


def record(key: str, value: str | bytes) -> bytes:
    """Return a PAX record, which counts its own length."""
    body = (
        b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
    )
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def pax(body: bytes, kind: bytes = b"x") -> bytes:
    """Return a PAX header with these records, whether they are any or not."""
    return stock_header(len(body), kind, "pax") + padded(body)


def pax_1_0(numbers: bytes, data: bytes, size: int) -> bytes:
    """Return a PAX 1.0 sparse member whose map is `numbers`."""
    records = (
        record("GNU.sparse.major", "1")
        + record("GNU.sparse.minor", "0")
        + record("GNU.sparse.name", "image")
        + record("GNU.sparse.realsize", str(size))
    )
    content = padded(numbers) + data
    return pax(records) + stock_header(len(content), name="GNUSparseFile.1/image") + padded(content)
