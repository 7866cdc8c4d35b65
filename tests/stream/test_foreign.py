"""What is no raw disk is refused by its name, wherever it is; every raw disk is taken."""

import os
import re
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bundlefs.base.errors import FormError
from bundlefs.bundling.bundle import Bundle
from bundlefs.image import foreign, forms
from bundlefs.image.open import open_source, require_raw
from bundlefs.image.raw import Image
from bundlefs.manifest.write import Metadata
from tests.support import images, sources
from tests.support.tools import run

MIB = images.MIB
MANIFEST = Path(__file__).parents[1] / "corpus/manifest/good-ec2-ami-tools.xml"

Maker = Callable[[Path, Path], object]


def by_tar(kind: str) -> Maker:
    def make(raw: Path, file: Path) -> None:
        run(["tar", f"--format={kind}", "-cf", file, "-C", raw.parent, raw.name])

    return make


def zipped(raw: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(raw, "disk.raw")


def begins(head: bytes, offset: int = 0) -> Maker:
    """Return a function that writes a head where no tool of these tests makes the format."""
    return lambda _, file: file.write_bytes((bytes(offset) + head).ljust(MIB, b"\7"))


def ends(tail: bytes) -> Maker:
    return lambda _, file: file.write_bytes(tail.rjust(MIB, b"\7"))


KINDS: dict[str, tuple[Maker, str, str]] = {
    "vhd-511": (
        ends(b"conectix\0\0\0\2\0\1\0\0".ljust(511, b"\0")),
        "a VHD of an old kind",
        "qemu-img convert -f vpc -O raw",
    ),
    "qcow": (sources.qemu("qcow"), "a qcow image of version 1", "qemu-img convert -f qcow -O raw"),
    "qed": (sources.qemu("qed"), "a QED image", "qemu-img convert -f qed -O raw"),
    "parallels": (sources.qemu("parallels"), "a Parallels disk", "qemu-img convert -f parallels"),
    "dmg": (ends(b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0")), "a DMG", "qemu-img convert -f dmg"),
    "cowd": (begins(b"COWD\1\0\0\0\3\0\0\0"), "a VMware ESX sparse disk", "qemu-img convert"),
    "tar": (by_tar("gnu"), "a tar archive", "tar -xf"),
    "tar-v7": (by_tar("v7"), "a tar archive", "tar -xf"),
    "tar-ustar": (by_tar("ustar"), "a tar archive", "tar -xf"),
    "tar-pax": (by_tar("posix"), "a tar archive", "tar -xf"),
    "zip": (zipped, "a zip archive", "unzip"),
    "7z": (begins(b"7z\xbc\xaf\x27\x1c\0\4"), "a 7z archive", "7z x"),
    "rar": (begins(b"Rar!\x1a\7\1\0"), "a RAR archive", "unrar x"),
    "cpio": (
        begins(b"070701" + b"%08X" * 13 % (*range(13),)),
        "a cpio archive",
        "cpio -idF",
    ),
    "ar": (begins(b"!<arch>\nx/      "), "an ar archive", "ar x"),
    "deb": (begins(b"!<arch>\ndebian-binary   "), "a Debian package", "dpkg-deb -x"),
    "lzma": (sources.by("xz", "--format=lzma", "-0", "-c"), "a .lzma file", "xz --format=lzma -dc"),
    "lzma-9": (sources.by("xz", "--format=lzma", "-9", "-c"), "a .lzma file", "xz --format=lzma"),
    "lzip": (begins(b"LZIP\1\x1a"), "an lzip file", "lzip -dc"),
    "lzop": (begins(b"\x89LZO\0\r\n\x1a\n"), "an lzop file", "lzop -dc"),
    "lz4": (begins(b"\x04\x22\x4d\x18\x64\x40\xa7"), "an lz4 file", "lz4 -dc"),
    "Z": (begins(b"\x1f\x9d\x90\x41"), "a .Z file", "gunzip -c"),
    "simg": (
        begins(b"\x3a\xff\x26\xed\1\0\0\0\x1c\0\x0c\0"),
        "an Android sparse image",
        "simg2img",
    ),
    "ewf": (begins(b"EVF\x09\x0d\x0a\xff\0\1"), "a disk in EnCase's format", "ewfexport"),
    "partclone": (begins(b"partclone-image\0"), "a partclone image", "partclone.restore"),
    "manifest": (
        lambda _, file: file.write_bytes(MANIFEST.read_bytes()),
        "a bundle's manifest",
        "bundlefs open",
    ),
    "manifest-bare": (begins(b"<manifest><version>3</version>"), "a bundle's manifest", "open"),
    "index": (begins(b"bundlefs-index 1\n\0"), "the index of a bundle", "bundlefs open"),
    "xml": (begins(b'<?xml version="1.0"?><Envelope ovf:version="1.0">'), "an XML file", "get"),
    "page": (begins(b"<!DOCTYPE html>\n<html><title>404"), "a web page", "get the image itself"),
    "lfs": (
        begins(b"version https://git-lfs.github.com/spec/v1\noid sha256:"),
        "a Git LFS pointer",
        "git lfs pull",
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.tuned_image(tmp_path_factory.mktemp("raw") / "disk", 300_000, MIB)


@pytest.fixture
def make(raw: Path, tmp_path: Path) -> Callable[[str], Path]:
    def made(kind: str) -> Path:
        path = tmp_path / "image"
        KINDS[kind][0](raw, path)
        return path

    return made


def refused(path: Path) -> str:
    with pytest.raises(FormError) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is refused ---


@every_kind
def test_refused_by_its_name_with_what_helps(kind: str, make: Callable[[str], Path]) -> None:
    path = make(kind)
    _, name, remedy = KINDS[kind]
    message = refused(path)
    assert message.startswith(f"image {path} is {name}")
    assert ", not a raw image: " in message
    assert remedy in message
    with closing(open_source(path, raw=True)) as source:
        assert isinstance(source, Image)


@pytest.mark.parametrize(
    ("kind", "packed"),
    [*((kind, "gzip") for kind in KINDS), ("vhd-511", "xz"), ("tar", "zstd"), ("Z", "bzip2")],
)
def test_refused_inside_a_compressed_file(
    kind: str, packed: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    inner, path, kept = make(kind), tmp_path / "packed", tmp_path / "points"
    path.write_bytes(run([packed, "-1", "-c", inner]))
    for _ in range(2):
        with pytest.raises(FormError) as caught:
            open_source(path, kept=kept)
        assert str(caught.value).startswith(
            f"image {path}: inside the {packed} file is {KINDS[kind][1]}"
        )
    open_source(path, raw=True).close()


@pytest.mark.parametrize("kind", ["qed", "qcow", "tar", "zip", "manifest"])
def test_refused_on_a_device(kind: str, make: Callable[[str], Path]) -> None:
    path = make(kind)
    os.truncate(path, -(-path.stat().st_size // 512) * 512)
    device = run(["losetup", "--find", "--show", path]).decode().strip()
    try:
        assert f"image {device} is {KINDS[kind][1]}" in refused(Path(device))
        open_source(device, raw=True).close()
    finally:
        run(["losetup", "--detach", device])


@pytest.mark.parametrize("kind", ["qed", "tar", "qcow2", "vhd-fixed", "ova"])
@pytest.mark.parametrize("disk", ["qcow2", "vmdk", "vdi"])
def test_refused_inside_a_virtual_disk(
    kind: str, disk: str, raw: Path, make: Callable[[str], Path], tmp_path: Path
) -> None:
    """As `qemu-img convert -f raw` makes it of what is not raw."""
    inner, path = tmp_path / "image", tmp_path / "disk"
    if kind in sources.DISKS:
        sources.DISKS[kind](raw, inner)
    else:
        make(kind)
    sources.qemu(disk)(inner, path)
    name = kind.removesuffix("-fixed") if kind in sources.DISKS else KINDS[kind][1]
    assert f"inside the {disk} file is {name}" in refused(path)


def test_the_library_refuses_it_too(make: Callable[[str], Path]) -> None:
    with pytest.raises(FormError, match="is a QED image, not a raw image"):
        Bundle.from_image(make("qed"), Metadata(account="123456789012"))


@pytest.mark.parametrize("path", ["a b.raw", "it's"])
def test_the_command_has_the_path_quoted(path: str, raw: Path, tmp_path: Path) -> None:
    file = tmp_path / path
    sources.qemu("qed")(raw, file)
    command = refused(file).partition(": ")[2].partition(": ")[2].replace("disk.raw", "/dev/stdout")
    assert command.startswith("qemu-img convert -f qed -O raw ")
    out = tmp_path / "out"
    run(["sh", "-c", command.replace("/dev/stdout", str(out))])
    assert out.read_bytes()[: raw.stat().st_size] == raw.read_bytes()


@pytest.mark.parametrize("manifest", ["image.manifest.xml", "image.us-gov-west-1.manifest.xml"])
def test_a_part_of_a_bundle(manifest: str, tmp_path: Path) -> None:
    part = images.random_image(tmp_path / "image.part.00", MIB)
    open_source(part).close()  # a name alone proves nothing
    (tmp_path / manifest).write_bytes(MANIFEST.read_bytes())
    assert f"bundlefs open {tmp_path / manifest} MOUNTPOINT" in refused(part)
    open_source(part, raw=True).close()
    other = images.random_image(tmp_path / "other.part.00", MIB)
    open_source(other).close()


@pytest.mark.parametrize("kind", ["qed", "zip", "manifest", "lzma"])
def test_what_comes_through_a_pipe(kind: str, make: Callable[[str], Path]) -> None:
    head = make(kind).read_bytes()[:MIB]
    with pytest.raises(FormError, match=re.escape(f"standard input is {KINDS[kind][1]}")):
        require_raw(head)


@pytest.mark.parametrize(
    "form", ["gzip", "bzip2", "xz", "zstd", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ova"]
)
def test_a_form_that_is_read_of_files_alone(form: str, raw: Path, tmp_path: Path) -> None:
    sources.ALL[form](raw, tmp_path / "image")
    with pytest.raises(FormError, match=f"standard input is {form}, not a raw"):
        require_raw((tmp_path / "image").read_bytes()[:4096])


# --- what is taken ---


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
