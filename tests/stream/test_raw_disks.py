"""Every raw disk is taken: nothing that boot code or a file system begins with is refused."""

import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bundlefs.image import foreign, forms
from bundlefs.image.open import open_source, require_raw
from bundlefs.image.raw import Image
from tests.support import images
from tests.support.tools import run

MIB = images.MIB


def partitioned(label: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        images.sparse_image(path, 8 * MIB, {})
        run(["sfdisk", "-q", path], data=f"label: {label}\n2048,4096\n".encode())

    return make


def by_mke2fs(kind: str) -> Callable[[Path], object]:
    return lambda path: run(["mke2fs", "-q", "-F", "-t", kind, path, "8M"])


def swap(path: Path) -> None:
    images.sparse_image(path, 8 * MIB, {})
    path.chmod(0o600)
    run(["mkswap", path])


def written(offset: int, data: bytes) -> Callable[[Path], object]:
    """Return a function that writes the signature of a file system which no tool here makes."""
    return lambda path: images.sparse_image(path, 8 * MIB, {offset: data})


DISKS: dict[str, Callable[[Path], object]] = {
    "mbr": partitioned("dos"),
    "gpt": partitioned("gpt"),
    "ext2": by_mke2fs("ext2"),
    "ext4": by_mke2fs("ext4"),
    "swap": swap,
    "xfs": written(0, b"XFSB\0\0\x10\0"),
    "squashfs": written(0, b"hsqs\1\0\0\0"),
    "btrfs": written(0x10040, b"_BHRfS_M"),
    "lvm": written(512, b"LABELONE\1\0\0\0\0\0\0\0"),
    "luks": written(0, b"LUKS\xba\xbe\0\2"),
    "iso": written(0x8000, b"\1CD001\1\0"),
    "fat": written(0, b"\xeb\x3c\x90mkfs.fat\0\2\4"),
    "zeros": written(0, b""),
    "a boot sector with words of archives": written(0, b"\xebXPK7zRar!tar ustar conectix koly"),
    "words at other places": written(8, b"conectix\0\0\0\2\0\1\0\0" + b"PK\3\4QFI\xfb" * 9),
    "the word of tar without its checksum": written(257, b"ustar\0" + b"00"),
    "a footer elsewhere": written(8 * MIB - 1024, b"conectix\0\0\0\2\0\1\0\0"),
    "a short name at the end": written(8 * MIB - 512, b"koly"),
}


@pytest.mark.parametrize("disk", DISKS)
def test_a_raw_disk_is_taken(disk: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    DISKS[disk](path)
    with closing(open_source(path)) as source:
        assert isinstance(source, Image)
    require_raw(path.read_bytes())
    packed = tmp_path / "packed"
    packed.write_bytes(run(["gzip", "-1", "-c", path]))
    with closing(open_source(packed)) as source:
        assert source.size == path.stat().st_size


# What a head begins with that is no boot code: written down here anew, since a test that asked the
# table could not find it wrong. Hypothesis tries the constants of the package ("vhdxfile"), too.
MARKS = (
    *(b"conectix", b"vhdxfile", b"QFI\xfb\0\0\0\1", b"QED\0", b"WithoutFreeSpace"),
    *(b"WithouFreSpacExt", b"COWD\1\0\0\0", b"Bochs Virtual HD Image\0", b"#!/bin/sh\n#V"),
    *(b"\xbe\xba\xfe\xca\0\0\0\0\1", b"VMA\0\0\0\0\1", b"\x3a\xff\x26\xed\1\0"),
    *(b"EVF\x09\x0d\x0a\xff\0", b"EVF2\x0d\x0a\x81\0", b"AFF10\x0d\x0a\0", b"partclone-image"),
    b"bundlefs-index ",
    *(b"PaRtImAgE-VoLuMe", b"MSWIM\0\0\0", b"btrfs-stream\0", b"PK\3\4", b"PK\5\6\0\0\0\0"),
    *(b"7z\xbc\xaf\x27\x1c\0", b"Rar!\x1a\7", b"070701", b"070702", b"070707", b"!<arch>\n"),
    *(b"\xed\xab\xee\xdb", b"MSCF\0\0\0\0", b"xar!\0\x1c\0\1", b"\x5d\0\0", b"LZIP\1"),
    *(b"\x89LZO\0\r\n\x1a\n", b"\4\x22\x4d\x18", b"\2\x22\x4d\x18", b"\2\x21\x4c\x18"),
    *(b"\x1f\x9d", b"LRZI\0", b"\xff\6\0\0sNaPpY", b"version https://git-lfs.github.com/"),
    *(b"Salted__", b"age-encryption.org/v1\n"),
)
PAGES = (b"<?xml", b"<manifest>", b"<!--", b"<!doctype html", b"<html")
ENDS = {512: (b"conectix", b"koly\0\0\0\4"), 511: (b"conectix",)}


def is_marked(head: bytes, tail: bytes) -> bool:
    """Tell whether these bytes bear the very mark of something that is no raw disk."""
    page = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    sums = head[148:156].strip(b" \0")  # the checksum of a tar header
    return (
        head.startswith(MARKS)
        or page.startswith(PAGES)
        or head[8:12] == b"\xac\xcb\xba\xf5"
        or sums.isdigit()
        or any(tail[-size:].startswith(marks) for size, marks in ENDS.items() if len(tail) >= size)
    )


@given(code=st.binary(max_size=440), table=st.binary(min_size=64, max_size=64), tail=st.binary())
@example(code=b"\xebvhdxfile", table=bytes(64), tail=b"")
@example(code=b"vhdxfil", table=bytes(64), tail=b"conectix\0\0\0\2\0\1\0\0")
def test_no_boot_sector_is_taken_for_something_else(code: bytes, table: bytes, tail: bytes) -> None:
    head = code.ljust(446, b"\0") + table + b"\x55\xaa"
    assume(not is_marked(head, tail))
    assert foreign.find(head, tail) is None
    # The short signatures of forms that are read come about as they please.
    assert forms.of(head, tail) not in (forms.Form.VHD, forms.Form.VHDX, forms.Form.OVA)


@settings(max_examples=10)
@given(st.data())
def test_whatever_has_a_signature_bears_a_mark(data: st.DataObject) -> None:
    """So that a signature that is added to the table is added to the marks as well."""
    for one in foreign.TABLE:
        found = data.draw(st.from_regex(one.pattern))[: foreign.TAIL_SIZE]
        if one.pattern.match(found):
            at_end = found.ljust(-one.offset, b"\0")
            head, tail = (found, b"") if one.offset >= 0 else (b"", at_end)
            assert is_marked(head, tail), one.name


@pytest.mark.parametrize("jump", [b"\xeb", b"\xe9", b"\xfa", b"\x33\xc0", b"\x31\xc0", b"\x0e"])
def test_no_signature_begins_as_boot_code_does(jump: bytes) -> None:
    """Of the code with which boot sectors of all systems begin."""
    for length in range(64):
        assert foreign.find(jump + bytes(length) + struct.pack("<H", length), b"") is None


def test_all_signatures_lie_within_what_is_read() -> None:
    assert max(one.offset for one in foreign.TABLE) < forms.HEAD_SIZE
    assert min(one.offset for one in foreign.TABLE) >= -foreign.TAIL_SIZE
