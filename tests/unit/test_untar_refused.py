"""Tar heads that are refused: what is no archive of one file, and numbers that cannot be."""
# ruff: noqa: S311 (noise as test data keeps no secret)

from random import Random

import pytest

from bundlefs.base.errors import BundleError
from bundlefs.codec.sparse_map import MOST_EXTENTS
from bundlefs.codec.tar_headers import LARGEST_IMAGE, LONGEST_BODY, MOST_HEADERS
from bundlefs.codec.untar import read_member, trailing_ok
from tests.unit.refusals import refusing
from tests.unit.tar_heads import (
    base256,
    edited,
    entries,
    member_of,
    octal,
    padded,
    pax,
    pax_1_0,
    record,
    sparse_header,
    stock_header,
)


def refused(stream: bytes, reason: str) -> None:
    """Show that `stream` is refused for `reason`, in one line that a person can read."""
    with refusing(reason):
        member_of(stream)


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
