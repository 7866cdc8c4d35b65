"""The head of a tar stream as a map from the image to the stream: the way back of `tar`.

What may live here: where the data of the first member stands, in whichever of the four ways GNU
tar writes holes: the old GNU map behind a header of type S, and PAX 0.0, 0.1 and 1.0 [GNU tar,
src/tar.h, src/sparse.c; its manual, "Storing Sparse Files"; POSIX, pax]. In all four the data of
each extent is padded to a block, as GNU tar reads them; `size` counts it without the padding.

Pure: the stream comes through a function, so the same code serves a pipe and random access, and
only headers and maps are ever asked for, never a byte of data. The bytes are untrusted: whatever
they are, the answer is a `Member` or a `BundleError`, in bounded memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bundlefs.base.errors import BundleError
from bundlefs.base.escapes import cite
from bundlefs.base.spans import Span
from bundlefs.codec.sparse_map import MOST_EXTENTS, Extents, Hole, Run, Runs, too_many
from bundlefs.codec.tar_format import BLOCK, ENTRIES_IN_EXTENSION, ENTRIES_IN_HEADER, ENTRY, SPARSE
from bundlefs.codec.tar_headers import (
    UNREAD_KINDS,
    Extra,
    HeadReader,
    Read,
    decimal,
    name_of,
    number,
    read_headers,
)

__all__ = ["Hole", "Member", "Run", "Runs", "read_member", "trailing_ok"]

_REGULAR = (b"0", b"\0", b"7")
_LONGEST_NUMBER = 20


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
        """Yield what makes up the bytes `span` of the image, in order, none of it empty.

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
        read: is asked for headers and maps alone, in order and without gaps, and never
            for the data behind them.

    Raises:
        BundleError: it is not an archive, its first member is no file, or its map is not one.
    """
    stream = HeadReader(read)
    header, extra = read_headers(stream)
    name = name_of(header, extra)
    _require_file(header.kind, name)
    stored = decimal(extra.records[b"size"], "size") if b"size" in extra.records else header.size
    if header.kind == SPARSE:
        extents = _old_gnu_map(stream, header.block)
    else:
        extents = _pax_map(stream, extra, stored) or Extents(stored).add(0, stored)
    runs = extents.runs(stream.at)
    extents.require_stored(stored - extents.in_data)
    return Member(name, extents.image_size, runs, stream.at + extents.padded)


def trailing_ok(data: bytes) -> bool:
    """Return whether `data` may follow the member: any number of zeros.

    Anything else is a second member, and a bundle has one.
    """
    return data.count(0) == len(data)


def _require_file(kind: bytes, name: str) -> None:
    what = UNREAD_KINDS.get(kind, f"of the unknown type {kind!r}")
    if kind in (*_REGULAR, SPARSE):
        if not name.endswith("/"):
            return
        what = UNREAD_KINDS[b"5"]  # as V7 wrote them, which has no type for it
    raise BundleError(
        f"the archive's member {cite(name)} is {what}: the image of a bundle is a regular file"
    )


def _old_gnu_map(stream: HeadReader, block: bytes) -> Extents:
    """Read the map behind a header of type S: 4 entries, and 21 in each block that follows.

    In the header, the entries begin at byte 386 and the size of the image stands at byte 483
    [src/tar.h, oldgnu_header].
    """
    extents = Extents(number(block[483:495], "real size"))
    more = _entries(extents, block[386:], ENTRIES_IN_HEADER)
    while more:
        extension = stream.take(BLOCK, "its sparse map")
        more = _entries(extents, extension, ENTRIES_IN_EXTENSION)
    return extents


def _entries(extents: Extents, table: bytes, count: int) -> bool:
    """Add the entries of a table up to the first blank one; return whether another table follows.

    The byte behind the last entry says so [src/tar.h, isextended].
    """
    more = bool(table[count * ENTRY])
    for at in range(0, count * ENTRY, ENTRY):
        offset, length = table[at : at + 12], table[at + 12 : at + 24]
        if not length[0]:
            if more:
                raise BundleError("the archive's sparse map ends, and yet says that it goes on")
            return False
        extents.add(number(offset, "sparse offset"), number(length, "sparse length"))
    return more


def _pax_map(stream: HeadReader, extra: Extra, stored: int) -> Extents | None:
    """Read the map that PAX records hold or announce; None if the member is not sparse."""
    records = extra.records
    major = records.get(b"GNU.sparse.major")
    if major is not None:
        version = (major, records.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            return _pax_map_in_data(stream, extra, stored)
        if major != b"0":
            raise BundleError(f"the archive's sparse map is of the unknown version {cite(major)}")
    if not extra.sparse and not {b"GNU.sparse.map", b"GNU.sparse.size"} & records.keys():
        return None
    return _pax_map_in_records(extra)


def _pax_map_in_records(extra: Extra) -> Extents:
    """Read the map of PAX 0.0, a pair of records for each extent, or of 0.1, one record for all."""
    extents = Extents(_real_size(extra, b"GNU.sparse.size"))
    text = extra.records.get(b"GNU.sparse.map")
    numbers = extra.sparse
    if text:
        numbers = [decimal(each, "sparse map's") for each in text.split(b",")]
    if len(numbers) % 2:
        raise BundleError("the archive's sparse map is cut short: its last extent has no length")
    count = extra.records.get(b"GNU.sparse.numblocks")
    if count is not None and decimal(count, "GNU.sparse.numblocks") != len(numbers) // 2:
        raise BundleError(
            f"the archive's sparse map has {len(numbers) // 2} extents, and its header announces "
            f"{cite(count)}"
        )
    for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
        extents.add(offset, length)
    return extents


def _pax_map_in_data(stream: HeadReader, extra: Extra, stored: int) -> Extents:
    """Read the map of PAX 1.0: lines before the data, padded to a block and counted as data."""
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


def _lines(stream: HeadReader, stop: int) -> Iterator[int]:
    """Yield the numbers, one on each line; a block is read only when a number is missing."""
    text = b""
    while True:
        line, end, rest = text.partition(b"\n")
        if end:
            text = rest
            yield decimal(line, "sparse map's")
        elif len(text) > _LONGEST_NUMBER or stream.at + BLOCK > stop:
            raise BundleError(
                f"the archive's sparse map is damaged: {cite(text)} is followed by no line's end"
            )
        else:
            text += stream.take(BLOCK, "its sparse map")


def _real_size(extra: Extra, key: bytes) -> int:
    text = extra.records.get(key)
    if text is None:
        raise BundleError(f"the archive's sparse map does not say the image's size: no {key!r}")
    return decimal(text, key.decode())
