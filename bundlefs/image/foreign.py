"""What is certainly no raw disk and cannot be read here: each has its signature in one table.

A raw disk may begin with any code at all, and must never be refused for it. So an entry has a
signature that no disk has by chance, at the one place where it belongs. A file system without a
partition table (ext4, XFS, squashfs, ISO 9660) is a raw disk like any other.
"""

import glob
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.errors import FormError
from bundlefs.image import forms

TAIL_SIZE = 512
"""Bytes at the end of a file within which all signatures there lie."""

_QEMU = "make a raw image of it: qemu-img convert -f {} -O raw %s disk.raw"
_UNPACK = "unpack it ({}), and give the image that is in it"
_GET = "get the image itself"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that is no raw disk.

    Attributes:
        name: what it is, in words.
        remedy: what to do with it; %s stands for the path.
        pattern: its signature.
        offset: where that stands; a negative one counts from the end.
    """

    name: str
    remedy: str
    pattern: re.Pattern[bytes]
    offset: int = 0

    def matches(self, head: bytes, tail: bytes) -> bool:
        """Return whether what begins with `head` and ends with `tail` is this."""
        if self.offset >= 0:
            return self.pattern.match(head, self.offset) is not None
        return len(tail) >= -self.offset and bool(self.pattern.match(tail, self.offset + len(tail)))

    def refusal(self, path: Path) -> str:
        """Return what it is and what to do."""
        return f"{self.name}, not a raw image: {self.remedy.replace('%s', shlex.quote(str(path)))}"


def _disk(name: str, driver: str, pattern: bytes, offset: int = 0) -> Foreign:
    return Foreign(name, _QEMU.format(driver), re.compile(pattern, re.DOTALL), offset)


def _packed(name: str, command: str, pattern: bytes) -> Foreign:
    return Foreign(name, _UNPACK.format(command), re.compile(pattern, re.DOTALL))


def _other(name: str, remedy: str, pattern: bytes, offset: int = 0) -> Foreign:
    return Foreign(name, remedy, re.compile(pattern, re.DOTALL), offset)


# Properties lc=3 lp=0 pb=2, a dictionary of 2^n or 2^n + 2^(n-1) bytes from 64 KiB on, a size below
# 2^48 or none, and the byte 0 with which range coding begins [xz's lzma-file-format.txt].
_BITS = rb"\x01\x02\x03\x04\x06\x08\x0c\x10\x18\x20\x30\x40\x60\x80\xc0"
_LZMA = rb"\x5d\x00\x00(?:[%b]\x00|\x80\x01|\x00[%b])(?:\xff{8}|.{6}\x00\x00)\x00" % (_BITS, _BITS)
# Version needed, flags without the reserved bits 14 and 15, a method that is in use
# [APPNOTE.TXT 4.3.7].
_ZIP = rb"PK\x03\x04[\x00-\x3f]\x00.[\x00-\x3f](?:[\x00-\x13]|[\x5d-\x63])\x00"

TABLE = (
    # Virtual machines' disks, as qemu's block drivers know them.
    # Very old ones have a footer of 511 bytes, which qemu does not find.
    _disk("a VHD of an old kind", "vpc", forms.VHD_FOOTER.pattern, -511),
    _disk("a qcow image of version 1", "qcow", rb"QFI\xfb\x00\x00\x00\x01"),
    _disk("a QED image", "qed", rb"QED\x00"),
    _disk("a Parallels disk", "parallels", rb"WithoutFreeSpace|WithouFreSpacExt"),
    _disk("a VMware ESX sparse disk (COWD)", "vmdk", rb"COWD\x01\x00\x00\x00"),
    _disk("a Bochs disk", "bochs", rb"Bochs Virtual HD Image\x00"),
    _disk("a DMG", "dmg", rb"koly\x00\x00\x00\x04\x00\x00\x02\x00", -512),
    _disk("a cloop image", "cloop", rb"#!/bin/sh\n#V[0-9]\.[0-9]+ Format\n"),
    _other(
        "a VMware SE sparse disk",
        "make a raw image of it with VMware's own tools, or qemu-img convert -f vmdk of the file"
        " that describes it",
        rb"\xbe\xba\xfe\xca\x00{4}\x01\x00{3}\x02\x00{3}",
    ),
    _other("a Proxmox backup (VMA)", "extract the disk in it: vma extract %s", rb"VMA\x00{4}\x01"),
    # Other formats of disk images.
    _other(
        "an Android sparse image",
        "make a raw image of it: simg2img %s disk.raw",
        rb"\x3a\xff\x26\xed\x01\x00",
    ),
    _other(
        "a disk in EnCase's format",
        "make a raw image of it: ewfexport -f raw %s",
        rb"EVF\x09\x0d\x0a\xff\x00",
    ),
    _other(
        "a disk in EnCase's format",
        "make a raw image of it: ewfexport -f raw %s",
        rb"EVF2\x0d\x0a\x81\x00",
    ),
    _other(
        "a disk in the format AFF",
        "make a raw image of it: affconvert -r %s",
        rb"AFF10\x0d\x0a\x00",
    ),
    _other(
        "a partclone image",
        "restore it: partclone.restore -C -s %s -o disk.raw",
        rb"partclone-image",
    ),
    _other("a partimage image", "restore it with partimage", rb"PaRtImAgE-VoLuMe"),
    _other("a Windows image (WIM)", "apply it with wimlib-imagex", rb"MSWIM\x00{3}"),
    _other("a btrfs stream", "restore it: btrfs receive", rb"btrfs-stream\x00"),
    _other("a ZFS stream", "restore it: zfs receive", rb".{8}\xac\xcb\xba\xf5\x02\x00{3}"),
    # Archives.
    _packed("a zip archive", "unzip %s", _ZIP),
    _packed("an empty zip archive", "unzip %s", rb"PK\x05\x06\x00{16}"),
    _packed("a 7z archive", "7z x %s", rb"7z\xbc\xaf\x27\x1c\x00"),
    _packed("a RAR archive", "unrar x %s", rb"Rar!\x1a\x07[\x00\x01]"),
    _packed("a cpio archive", "cpio -idF %s", rb"07070[12][0-9A-Fa-f]{104}"),
    _packed("a cpio archive", "cpio -idF %s", rb"070707[0-7]{70}"),
    _packed("a Debian package", "dpkg-deb -x %s DIR", rb"!<arch>\ndebian-binary"),
    _packed("an ar archive", "ar x %s", rb"!<arch>\n"),
    _packed("an RPM package", "rpm2cpio %s | cpio -id", rb"\xed\xab\xee\xdb[\x03\x04]"),
    _packed("a cabinet", "cabextract %s", rb"MSCF\x00{4}"),
    _packed("a xar archive", "xar -xf %s", rb"xar!\x00\x1c\x00\x01"),
    # Compressed files.
    _packed("a .lzma file", "xz --format=lzma -dc %s >disk.raw", _LZMA),
    _packed("an lzip file", "lzip -dc %s >disk.raw", rb"LZIP\x01"),
    _packed("an lzop file", "lzop -dc %s >disk.raw", rb"\x89LZO\x00\x0d\x0a\x1a\x0a"),
    _packed("an lz4 file", "lz4 -dc %s >disk.raw", rb"[\x04\x02]\x22\x4d\x18|\x02\x21\x4c\x18"),
    _packed("a .Z file", "gunzip -c <%s >disk.raw", rb"\x1f\x9d[\x89-\x90]"),
    _packed("an lrzip file", "lrzip -d %s", rb"LRZI\x00[\x00-\x0f]"),
    _packed("a snappy file", "snzip -dc %s >disk.raw", rb"\xff\x06\x00\x00sNaPpY"),
    # What is found in place of an image.
    _other(
        "a bundle's manifest",
        "bundlefs open %s MOUNTPOINT shows the image that is in the bundle",
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,200}?-->\s*)?<manifest>",
    ),
    _other(
        "the index of a bundle",
        "give the bundle's manifest to bundlefs open, which shows the image that is in it",
        rb"bundlefs-index [0-9]",
    ),
    _other(
        "an XML file",
        _GET + ", which it may describe",
        rb"(?:\xef\xbb\xbf)?<\?xml\s+version\s*=\s*['\"]1",
    ),
    _other(
        "a web page",
        _GET + ": what was downloaded is a page about it, or an error",
        rb"\s{0,64}(?i:<!doctype html|<html[\s>])",
    ),
    _other("a Git LFS pointer", _GET + ": git lfs pull", rb"version https://git-lfs\.github\.com/"),
    _other("a file that openssl enc encrypted", "decrypt it first", rb"Salted__"),
    _other("a file that age encrypted", "decrypt it first", rb"age-encryption\.org/v1\n"),
)

_TAR = Foreign("a tar archive", _UNPACK.format("tar -xf %s"), re.compile(b""))
_PART = re.compile(r"(.+)\.part\.[0-9]+")


def find(head: bytes, tail: bytes) -> Foreign | None:
    """Return what begins with `head` and ends with `tail`, or None if it is nothing known.

    Args:
        head: the first `forms.HEAD_SIZE` bytes, or all of them.
        tail: the last `TAIL_SIZE` bytes, or all of them; empty if they are not known.
    """
    known = next((one for one in TABLE if one.matches(head, tail)), None)
    return known or (_TAR if forms.is_tar(head) and not forms.is_ova(head) else None)


def inside(path: Path, packed: str, name: str) -> FormError:
    """Return the error for a file of another form with something inside that is no disk."""
    return FormError(
        f"image {path}: inside the {packed} file is {name}, not a raw image: unpack it first, and"
        " give the image that is in it"
    )


def bundle_of(path: Path) -> Path | None:
    """Return the manifest of the bundle that a file is a part of, by its name, or None."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return None
    prefix = found[1]
    manifest = path.with_name(f"{prefix}.manifest.xml")
    if manifest.is_file():
        return manifest
    # That of a region has the region in its name [keys/regions.py].
    others = sorted(path.parent.glob(f"{glob.escape(prefix)}.*.manifest.xml"))
    return others[0] if others else None
