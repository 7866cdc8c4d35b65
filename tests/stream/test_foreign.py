"""What is no raw disk is refused by its name, wherever it is."""

import os
import re
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bundlefs.base.errors import FormError
from bundlefs.bundling.bundle import Bundle
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
