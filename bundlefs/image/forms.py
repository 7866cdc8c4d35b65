"""The forms that an image can have, and how they are recognised: by its first and last bytes."""

import re
from enum import Enum

HEAD_SIZE = 512
"""Bytes within which all signatures lie, at the start and at the end."""


class Form(Enum):
    """A form that an image can have; the value is what a person calls it."""

    RAW = "raw"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VMDK_TEXT = "vmdk descriptor"
    VDI = "vdi"
    VHD = "vhd"
    VHDX = "vhdx"
    OVA = "ova"


# Where a signature stands, and what it is. Those of gzip and bzip2 are short, so what must follow
# them counts as well: the only method of gzip, and the begin of a bzip2 block, or of the end of an
# empty file. [RFC 1952 2.3.1; bzip2's decompress.c; xz-file-format 2.1.1.1; RFC 8878 3.1.1;
# qemu's docs/interop/qcow2.txt; block/vmdk.c; block/vdi.c]
_SIGNATURES = (
    (Form.GZIP, 0, b"\x1f\x8b\x08"),
    *((Form.BZIP2, 0, b"BZh%d1AY&SY" % level) for level in range(1, 10)),
    *((Form.BZIP2, 0, b"BZh%d\x17\x72\x45\x38\x50\x90" % level) for level in range(1, 10)),
    (Form.XZ, 0, b"\xfd7zXZ\x00"),
    (Form.ZSTD, 0, b"\x28\xb5\x2f\xfd"),
    # A frame to be skipped, with which pzstd's files begin.
    *((Form.ZSTD, 0, b"%c\x2a\x4d\x18" % first) for first in range(0x50, 0x60)),
    (Form.QCOW2, 0, b"QFI\xfb"),
    (Form.VMDK, 0, b"KDMV"),
    (Form.VMDK_TEXT, 0, b"# Disk DescriptorFile"),
    (Form.VDI, 0x40, b"\x7f\x10\xda\xbe"),
    (Form.VHDX, 0, b"vhdxfile"),
)
VHD_FOOTER = re.compile(rb"conectix.{4}\x00\x01\x00\x00", re.DOTALL)
"""With version 1.0 of the format, which is the only one; at the start only of those that grow.

[Microsoft's Virtual Hard Disk Image Format Specification]
"""
_CHECKSUM = slice(148, 156)
_OF_OVA = (b".ovf", b"ova.xml")

UNPACKED = frozenset({Form.BZIP2, Form.XZ, Form.ZSTD})
"""Those that are unpacked before they are read."""

_COMMANDS = {
    Form.GZIP: "gunzip -c <{} >disk.raw",
    Form.BZIP2: "bunzip2 -c <{} >disk.raw",
    Form.XZ: "xz -dc <{} >disk.raw",
    Form.ZSTD: "zstd -dc <{} >disk.raw",
    # The footer of a fixed one is at its end, where qemu-img does not look by itself.
    Form.VHD: "qemu-img convert -f vpc -O raw {} disk.raw",
    Form.OVA: "tar -xf {}, and qemu-img convert -O raw of the disk in it",
}


def of(head: bytes, tail: bytes = b"") -> Form:
    """Return the form of what begins with `head` and ends with `tail`.

    Args:
        head: the first `HEAD_SIZE` bytes, or all of them.
        tail: the last `HEAD_SIZE` bytes, or all of them; empty if they are not known.
    """
    for form, offset, signature in _SIGNATURES:
        if head.startswith(signature, offset):
            return form
    if VHD_FOOTER.match(head) or (len(tail) >= HEAD_SIZE and VHD_FOOTER.match(tail[-HEAD_SIZE:])):
        return Form.VHD
    return Form.OVA if is_ova(head) else Form.RAW


def is_tar(head: bytes) -> bool:
    """Return whether it is a tar archive by the checksum of its first header, which all tars have.

    It is the sum of the header's bytes in octal; the checksum itself counts as eight blanks.
    """
    text = head[_CHECKSUM].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", text):
        return False
    return int(text, 8) == sum(head[:148]) + 8 * 0x20 + sum(head[156:512])


def is_ova(head: bytes) -> bool:
    """Return whether it is a tar archive that begins with the description of a machine."""
    return is_tar(head) and head[:100].rstrip(b"\0").lower().endswith(_OF_OVA)


def may_begin(form: Form, head: bytes) -> bool:
    """Return whether what begins with `head` is of a form, or may be if more of it follows."""
    return any(
        head.startswith(signature, offset) or signature.startswith(head)
        for each, offset, signature in _SIGNATURES
        if each is form
    )


def command(form: Form, path: str) -> str:
    """Return the command that makes a raw image of a file or device in this form."""
    return _COMMANDS.get(form, "qemu-img convert -O raw {} disk.raw").format(path)


NAMED = tuple(form.value for form in Form if form not in (Form.RAW, Form.VMDK_TEXT))
"""The forms that a user can name, but for raw."""
