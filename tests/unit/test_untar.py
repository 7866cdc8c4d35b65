"""Tar heads against Python's tarfile, against our own layout, and against all that is refused."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import io
import tarfile
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.codec.sparse_map import MOST_EXTENTS, Extents
from bundlefs.codec.tar import FromImage, layout
from bundlefs.codec.tar_headers import LARGEST_IMAGE, LONGEST_BODY, MOST_HEADERS
from bundlefs.codec.untar import Hole, Member, Run, read_member, trailing_ok

BLOCK = 512
GIB = 1 << 30
FORMATS: dict[str, Literal[0, 1, 2]] = {
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
    "ustar": tarfile.USTAR_FORMAT,
}


def member_of(stream: bytes) -> Member:
    return read_member(lambda offset, length: stream[offset : offset + length])


def image_of(member: Member, stream: bytes, span: Span | None = None) -> bytes:
    return b"".join(
        bytes(piece.length)
        if isinstance(piece, Hole)
        else stream[piece.stream_offset : piece.stream_offset + piece.image.length]
        for piece in member.pieces(span or Span(0, member.size))
    )


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def stock_header(size: int, kind: bytes = b"0", name: str = "image") -> bytes:
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
    return b"%011o\0" % value


def base256(value: int) -> bytes:
    return (value % (1 << 96) | 1 << 95).to_bytes(12, "big")


def entries(extents: Iterable[tuple[int, int]]) -> bytes:
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


def refused(stream: bytes, reason: str) -> None:
    """Show that `stream` is refused for `reason`, in one line that a person can read."""
    with pytest.raises(BundleError, match=reason) as caught:
        member_of(stream)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


# What is read


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


# Bad input


def test_no_archive() -> None:
    refused(b"", "the archive ends within a header: it has 0 of 512 bytes at 0, so it is cut short")
    refused(b"x" * 511, "the archive ends within a header: it has 511 of 512 bytes at 0")
    refused(bytes(10_240), "the archive is empty: it has no member")
    refused(b"x" * 512, "has no tar header at 0: its checksum b'xxxxxxxx' is not")
    refused(Random(1).randbytes(512), "the decrypted data is no tar archive, or it is damaged")


@pytest.mark.parametrize("at", [0, 100, 130, 156, 300, 511])
def test_one_flipped_bit(at: int) -> None:
    header = bytearray(stock_header(5))
    header[at] ^= 1
    refused(bytes(header), "no tar header at 0: its checksum b'.*' is not")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a character device"),
        (b"4", "a block device"),
        (b"5", "a directory"),
        (b"6", "a named pipe"),
        (b"D", "a directory with its listing"),
        (b"M", "the rest of a file of another volume"),
        (b"V", "a volume's label"),
        (b"Z", "of the unknown type b'Z'"),
        (b"\xff", r"of the unknown type b'\\xff'"),
    ],
)
def test_members_that_are_no_files(kind: bytes, what: str) -> None:
    reason = f"member 'image/?' is {what}: the image of a bundle is a regular file"
    refused(stock_header(0, kind), reason)
    refused(pax(record("path", "image")) + stock_header(0, kind, "other"), reason)


@pytest.mark.parametrize("kind", [b"0", b"\0"])
def test_directory_of_v7(kind: bytes) -> None:
    refused(stock_header(0, kind, "image/"), "member 'image/' is a directory")


def test_several_members() -> None:
    stream = stock_header(5) + padded(b"image") + stock_header(5, name="other") + padded(b"image")
    found = member_of(stream)
    assert found.name == "image"
    assert not trailing_ok(stream[found.end :])


@pytest.mark.parametrize("size", [0, 1, 512, 1024, 10_240, 1 << 20])
def test_what_may_follow_the_member(size: int) -> None:
    assert trailing_ok(bytes(size))
    assert not trailing_ok(bytes(size) + b"\1")
    assert not trailing_ok(b"\1" + bytes(size))


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (base256(-1), "size -1 cannot be: it must be 0 to"),
        (base256(-(1 << 94)), "size -19807040628566084398385987584 cannot be"),
        (base256(LARGEST_IMAGE + 1), f"size {LARGEST_IMAGE + 1} cannot be"),
        (b"\x80" + b"\x3f" * 11, "size [0-9]* cannot be"),
        (b"\xff" * 12, "size -1 cannot be"),
        (b"777777777777", ""),
        (b"-0000000001\0", "size b'-0000000001.x00' is not a number"),
        (b"00000000008\0", "size b'00000000008.x00' is not a number"),
        (b"0x0000000010", "size b'0x0000000010' is not a number"),
        (b"123 45678901", "is not a number"),
        (bytes(12), "is not a number"),
        (b" " * 12, "is not a number"),
    ],
)
def test_sizes_in_headers(size: bytes, reason: str) -> None:
    header = edited(stock_header(0), size=size)
    if reason:
        refused(header, f"the archive's {reason}" if reason.startswith("size") else reason)
    else:
        assert member_of(header).size == 8**12 - 1  # 12 digits and no terminator: as GNU tar


@pytest.mark.parametrize(
    "size",
    [
        "-1",
        "+5",
        "5.0",
        "0x5",
        "",
        " 5",
        "5 ",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "9" * 19,
        "9" * 5000,
        "5\0",
    ],
)
def test_sizes_in_pax_records(size: str) -> None:
    refused(
        pax(record("size", size)) + stock_header(5), "the archive's size .* (cannot be|is not a)"
    )


@pytest.mark.parametrize(
    ("extents", "size", "reason"),
    [
        (
            [(4096, 512), (0, 512)],
            8192,
            "out of order: an extent at 0 follows one that ends at 4608",
        ),
        (
            [(0, 1024), (512, 512)],
            8192,
            "out of order: an extent at 512 follows one that ends at 10",
        ),
        ([(0, 512), (0, 512)], 8192, "out of order: an extent at 0 follows one that ends at 512"),
        ([(8192, 512)], 8192, "goes beyond the image: 512 bytes at 8192, of an image of 8192"),
        ([(7900, 512)], 8192, "goes beyond the image: 512 bytes at 7900"),
        ([(9000, 0)], 8192, "goes beyond the image: 0 bytes at 9000"),
        ([(0, 8**11 - 1)], 8192, "goes beyond the image: 8589934591 bytes at 0"),
    ],
)
def test_sparse_maps_that_cannot_be(extents: list[tuple[int, int]], size: int, reason: str) -> None:
    refused(sparse_header(extents, size), reason)
    numbers = [number for extent in extents for number in extent]
    lines = "".join(f"{number}\n" for number in (len(extents), *numbers)).encode()
    refused(pax_1_0(lines, b"", size), reason)
    real = record("GNU.sparse.size", str(size))
    flat = record("GNU.sparse.map", ",".join(map(str, numbers)))
    refused(pax(real + flat) + stock_header(0), reason)
    pairs = b"".join(
        record("GNU.sparse.offset", str(offset)) + record("GNU.sparse.numbytes", str(length))
        for offset, length in extents
    )
    refused(pax(real + pairs) + stock_header(0), reason)


def test_negative_and_absurd_numbers_in_old_gnu_maps() -> None:
    header = sparse_header([(0, 512)], 8192)
    refused(edited(header, map=base256(-512)), "the archive's sparse offset -512 cannot be")
    refused(edited(header, map=octal(0) + base256(-1)), "the archive's sparse length -1 cannot be")
    refused(edited(header, realsize=base256(-8192)), "the archive's real size -8192 cannot be")
    refused(edited(header, realsize=base256(1 << 63)), "real size 9223372036854775808 cannot be")
    refused(edited(header, map=b"garbage...."), "sparse offset b'garbage.*' is not a number")


def test_sparse_data_that_the_size_does_not_match() -> None:
    reason = "the archive's sparse map has 512 bytes of data, and its header "
    refused(sparse_header([(0, 512)], 8192, stored=513), f"{reason}513")
    refused(sparse_header([(0, 512)], 8192, stored=0), f"{reason}0")
    refused(pax_1_0(b"1\n0\n512\n", bytes(100), 8192), f"{reason}100")
    records = record("GNU.sparse.size", "8192") + record("GNU.sparse.map", "0,512")
    refused(pax(records) + stock_header(511), f"{reason}511")


def test_old_gnu_map_that_goes_on_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundlefs.codec.sparse_map.MOST_EXTENTS", 10_000)
    header = edited(sparse_header([(0, 0)] * 4, 8192), extended=b"\1")
    extension = entries([(0, 0)] * 21) + b"\1" + bytes(7)
    calls = 0

    def read(offset: int, _length: int) -> bytes:
        nonlocal calls
        calls += 1
        return extension if offset else header

    with pytest.raises(BundleError, match="map has more than 10000 extents, and no more"):
        read_member(read)
    assert calls <= 2 + 10_000 // 21


def test_old_gnu_map_that_is_cut_short() -> None:
    header = edited(sparse_header([(0, 0)] * 4, 8192), extended=b"\1")
    refused(header, "the archive ends within its sparse map: it has 0 of 512 bytes at 512")
    blank = edited(sparse_header([(0, 0)] * 3, 8192), extended=b"\1")
    refused(blank, "the archive's sparse map ends, and yet says that it goes on")


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (b"", "sparse map's b'' is not a number|is followed by no line's end"),
        (b"x\n", "the archive's sparse map's b'x' is not a number"),
        (b"-1\n", "sparse map's b'-1' is not a number"),
        (b"1\n0\n", "map is damaged: b'.*' is followed by no line's end"),
        (b"5" * 2000, "map is damaged: b'5555.*…' is followed by no line's end"),
        (b"4194305\n", f"more than {MOST_EXTENTS} extents"),
        (b"99999999999999999999\n", "is not a number"),
        (b"2\n0\n512\n", "map is damaged: b'.*' is followed by no line's end"),
    ],
)
def test_pax_maps_in_data_that_are_none(numbers: bytes, reason: str) -> None:
    refused(pax_1_0(numbers, b"", 8192), reason)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({"GNU.sparse.major": "2", "GNU.sparse.minor": "0"}, "map is of the unknown version b'2'"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "1"}, "map is of the unknown version b'1'"),
        ({"GNU.sparse.major": "1"}, "map is of the unknown version b'1'"),
        (
            {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
            "does not say the image's size: no b'GNU.sparse.realsize'",
        ),
        ({"GNU.sparse.map": "0,5"}, "does not say the image's size: no b'GNU.sparse.size'"),
        ({"GNU.sparse.size": "5", "GNU.sparse.map": "0,1,2"}, "its last extent has no length"),
        ({"GNU.sparse.size": "5", "GNU.sparse.map": "0,,2"}, "sparse map's b'' is not a number"),
        ({"GNU.sparse.size": "5", "GNU.sparse.map": "0;5"}, "sparse map's b'0;5' is not a number"),
        ({"GNU.sparse.size": "5", "GNU.sparse.offset": "0"}, "its last extent has no length"),
        ({"GNU.sparse.numbytes": "5"}, "an offset and a length must take turns"),
        ({"GNU.sparse.offset": "x"}, "the archive's GNU.sparse.offset b'x' is not a number"),
        (
            {"GNU.sparse.size": "5", "GNU.sparse.numblocks": "2", "GNU.sparse.map": "0,5"},
            "has 1 extents, and its header announces b'2'",
        ),
        ({"GNU.sparse.size": "-5"}, "the archive's GNU.sparse.size b'-5' is not a number"),
    ],
)
def test_sparse_records_that_cannot_be(records: dict[str, str], reason: str) -> None:
    body = b"".join(record(key, value) for key, value in records.items())
    refused(pax(body) + stock_header(5) + padded(b"image"), reason)


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6 a=b",
        b"5 a=b\n",
        b"99 a=b\n",
        b"9999999999999999999 a=b\n",
        b"6 abcd\n7 =bcd\n",
        b"6 =bc\n",
        b"4 a=\n",
        b"3 a=b\n",
        b"8 a=b\n\0\0",
    ],
)
def test_damaged_pax_records(body: bytes) -> None:
    refused(pax(body) + stock_header(5), "PAX header is damaged at 0: b'.*' is no record")


def test_absurd_bodies() -> None:
    for kind, what in ((b"x", "PAX header"), (b"g", "PAX header"), (b"L", "long name")):
        header = stock_header(LONGEST_BODY + 1, kind)
        refused(header, f"the archive's {what} has {LONGEST_BODY + 1} bytes, and more than")
        refused(stock_header(LONGEST_BODY, kind), f"the archive ends within its {what}")
    refused(stock_header(1 << 40, b"K"), "long link name has 1099511627776 bytes, and more than")


def test_headers_without_end() -> None:
    refused(pax(b"") * MOST_HEADERS + stock_header(0), f"has {MOST_HEADERS} headers and no member")
    assert member_of(pax(b"") * (MOST_HEADERS - 1) + stock_header(0)).size == 0


def test_control_characters_of_names_stay_out_of_messages() -> None:
    refused(
        stock_header(0, b"5", "\x1b[31m\n" + "x" * 90), r"member '\\x1b\[31m\\nxx*…' is a direc"
    )
