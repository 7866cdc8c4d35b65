"""Tar heads that are read: those of Python's tarfile, sparse maps of every kind, our own layout."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import io
import tarfile
import time
from itertools import pairwise
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.spans import Span
from bundlefs.codec.sparse_map import Extents
from bundlefs.codec.tar import FromImage, layout
from bundlefs.codec.tar_headers import LARGEST_IMAGE
from bundlefs.codec.untar import Hole, Member, Run, read_member, trailing_ok
from tests.unit.tar_heads import (
    edited,
    member_of,
    padded,
    pax,
    pax_1_0,
    record,
    sparse_header,
    stock_header,
)

GIB = 1 << 30
FORMATS: dict[str, Literal[0, 1, 2]] = {
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
    "ustar": tarfile.USTAR_FORMAT,
}


def image_of(member: Member, stream: bytes, span: Span | None = None) -> bytes:
    return b"".join(
        bytes(piece.length)
        if isinstance(piece, Hole)
        else stream[piece.stream_offset : piece.stream_offset + piece.image.length]
        for piece in member.pieces(span or Span(0, member.size))
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000])
def test_plain_member_of_tarfile(form: str, size: int) -> None:
    data = Random(size).randbytes(size)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=FORMATS[form]) as archive:
        info = tarfile.TarInfo("image")
        info.size = size
        archive.addfile(info, io.BytesIO(data))
    stream = target.getvalue()
    found = member_of(stream)
    assert (found.name, found.size) == ("image", size)
    assert image_of(found, stream) == data
    assert found.end == 512 + -(-size // 512) * 512
    assert trailing_ok(stream[found.end :])


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("name", ["größe/" * 60 + "image", "x" * 101, "i\N{SNOWMAN}"])
def test_long_names_of_tarfile(form: str, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = 5
    stream = info.tobuf(FORMATS[form], "utf-8") + padded(b"image")
    found = member_of(stream)
    assert found.name == name
    assert image_of(found, stream) == b"image"


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 10 * GIB + 1, LARGEST_IMAGE])
def test_large_sizes_of_tarfile(form: str, size: int) -> None:
    info = tarfile.TarInfo("image")
    info.size = size
    head = info.tobuf(FORMATS[form])
    found = member_of(head)
    assert found.size == size
    assert list(found.runs) == [Run(len(head), Span(0, size))]
    assert found.end == len(head) + -(-size // 512) * 512


def test_prefix_of_ustar_alone() -> None:
    header = stock_header(0)
    assert member_of(edited(header, magic=b"ustar\x0000", prefix=b"folder")).name == "folder/image"
    assert member_of(edited(header, prefix=b"folder")).name == "image"


def test_name_that_is_not_utf_8() -> None:
    assert member_of(edited(stock_header(0), name=b"im\xffge")).name == "im\udcffge"


def test_v7_header() -> None:
    header = edited(stock_header(0), kind=b"\0", magic=bytes(8 + 64 + 16), size=b"       5   \0")
    assert member_of(header).size == 5


def test_signed_checksum() -> None:
    block = edited(stock_header(0), name=b"im\xff\xfege")
    total = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 8 * 32
    assert member_of(block[:148] + b"%06o\0 " % total + block[156:]).name == "im\udcff\udcfege"


def test_global_pax_header_is_overruled() -> None:
    stream = (
        pax(record("path", "all") + record("comment", "x" * 600), b"g")
        + pax(record("path", "first") + record("path", "image") + record("size", "7"))
        + stock_header(5)
    )
    assert member_of(stream).name == "image"
    assert member_of(stream).size == 7


def test_long_link_name_is_passed_over() -> None:
    stream = stock_header(600, b"K") + bytes(1024) + stock_header(5)
    assert member_of(stream).end == 512 + 1024 + 512 + 512


@st.composite
def sparse_images(draw: st.DrawFn) -> tuple[bytes, tuple[Span, ...]]:
    """An image of a few dozen blocks and the extents of its data, both of any alignment."""
    cuts = sorted(draw(st.sets(st.integers(0, 60_000), min_size=1, max_size=40)))
    image = bytearray(cuts[-1] + draw(st.integers(0, 2000)))
    extents = tuple(Span(start, stop) for start, stop in pairwise(cuts))[:: draw(st.integers(1, 2))]
    for extent in extents:
        image[extent.start : extent.stop] = Random(extent.start).randbytes(extent.length)
    return bytes(image), extents


@given(sparse_images(), st.lists(st.integers(0, 63_000), min_size=2, max_size=2))
def test_our_own_layout(case: tuple[bytes, tuple[Span, ...]], bounds: list[int]) -> None:
    image, extents = case
    tar = layout("image", len(image), 0, extents)
    stream = b"".join(
        image[piece.span.start : piece.span.stop] if isinstance(piece, FromImage) else piece.data
        for piece in tar.pieces(Span(0, tar.size))
    )
    found = member_of(stream)
    assert found.size == len(image)
    assert image_of(found, stream) == image
    start, stop = sorted(bounds)
    assert image_of(found, stream, Span(start, stop)) == image[start:stop]
    assert trailing_ok(stream[found.end :])
    assert found.end <= len(stream) < found.end + 1024 + 10_240


def test_extents_of_our_own_layout() -> None:
    extents = [Span(n * 8192, n * 8192 + 4096) for n in range(100)]
    tar = layout("image", 1 << 20, 0, extents)
    found = member_of(tar.head)
    assert [run.image for run in found.runs] == extents
    assert [run.stream_offset for run in found.runs[:2]] == [len(tar.head), len(tar.head) + 4096]
    assert found.runs[-1].stream_offset == len(tar.head) + 99 * 4096
    assert list(found.pieces(Span(100, 10_000))) == [
        Run(len(tar.head) + 100, Span(100, 4096)),
        Hole(4096),
        Run(len(tar.head) + 4096, Span(8192, 10_000)),
    ]
    assert list(found.pieces(Span(5000, 6000))) == [Hole(1000)]
    assert list(found.pieces(Span(2 << 20, 3 << 20))) == []
    assert list(found.pieces(Span(500, 500))) == []


def test_image_that_is_one_hole() -> None:
    for stream in (
        sparse_header([(4096, 0)], 4096),
        sparse_header([], 4096),
        pax_1_0(b"0\n", b"", 4096),
        pax_1_0(b"1\n4096\n0\n", b"", 4096),
        pax(record("GNU.sparse.size", "4096")) + stock_header(0),
    ):
        found = member_of(stream)
        assert list(found.pieces(Span(0, 5000))) == [Hole(4096)]
        assert len(found.runs) == 0


def test_each_extent_is_padded_as_gnu_tar_does() -> None:
    head = sparse_header([(0, 100), (1000, 600), (2000, 48)], 2048)
    stream = head + padded(b"a" * 100) + padded(b"b" * 600) + padded(b"c" * 48)
    found = member_of(stream)
    assert found.end == len(stream)
    assert image_of(found, stream) == (
        b"a" * 100 + bytes(900) + b"b" * 600 + bytes(400) + b"c" * 48
    )


def test_extents_that_meet_are_joined() -> None:
    found = member_of(sparse_header([(0, 512), (512, 512), (1024, 100), (1124, 10)], 2048))
    assert list(found.runs) == [Run(512, Span(0, 1124)), Run(512 + 1536, Span(1124, 1134))]


@given(sparse_images())
def test_pax_maps_in_records(case: tuple[bytes, tuple[Span, ...]]) -> None:
    image, extents = case
    size = record("GNU.sparse.size", str(len(image)))
    count = record("GNU.sparse.numblocks", str(len(extents)))
    pairs = b"".join(
        record("GNU.sparse.offset", str(extent.start))
        + record("GNU.sparse.numbytes", str(extent.length))
        for extent in extents
    )
    flat = ",".join(f"{extent.start},{extent.length}" for extent in extents)
    data = [image[extent.start : extent.stop] for extent in extents]
    tail = stock_header(sum(map(len, data))) + b"".join(map(padded, data))
    for records in (size + count + pairs, size + count + record("GNU.sparse.map", flat)):
        stream = pax(records) + tail
        assert image_of(member_of(stream), stream) == image


@given(sparse_images())
def test_pax_map_in_data(case: tuple[bytes, tuple[Span, ...]]) -> None:
    image, extents = case
    numbers = [len(extents), *(each for span in extents for each in (span.start, span.length))]
    lines = padded("".join(f"{number}\n" for number in numbers).encode())
    data = [image[extent.start : extent.stop] for extent in extents]
    records = (
        record("GNU.sparse.major", "1")
        + record("GNU.sparse.minor", "0")
        + record("GNU.sparse.realsize", str(len(image)))
    )
    stored = len(lines) + sum(map(len, data))
    stream = pax(records) + stock_header(stored) + lines + b"".join(map(padded, data))
    found = member_of(stream)
    assert image_of(found, stream) == image
    assert found.end == len(stream)


def test_only_headers_and_maps_are_asked_for() -> None:
    extents = [Span(n * 8192, n * 8192 + 4096) for n in range(1000)]
    asked: list[Span] = []
    tar = layout("image", 16 << 20, 0, extents)

    def read(offset: int, length: int) -> bytes:
        asked.append(Span(offset, offset + length))
        return tar.head[offset : offset + length]

    found = read_member(read)
    assert len(found.runs) == 1000
    assert asked[0].start == 0
    assert asked[-1].stop == len(tar.head) == found.runs[0].stream_offset
    assert all(one.stop == other.start for one, other in pairwise(asked))


def test_finding_a_piece_does_not_walk_the_map() -> None:
    extents = Extents(1 << 40)
    for n in range(200_000):
        extents.add(n << 20, 4096)
    found = Member("image", 1 << 40, extents.runs(512), 512 + extents.padded)
    started = time.monotonic()
    for _ in range(200):
        assert len(list(found.pieces(Span(199_990 << 20, 199_992 << 20)))) == 4
    # A walk of 200,000 runs takes a tenth of a second, a search some microseconds.
    assert time.monotonic() - started < 2
