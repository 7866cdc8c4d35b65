"""The forms that an image can have, and how they are recognised: by its first bytes."""

from enum import Enum

HEAD_SIZE = 512
"""Bytes within which all signatures lie."""


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
)

UNPACKED = frozenset({Form.BZIP2, Form.XZ, Form.ZSTD})
"""Those that are unpacked before they are read."""

_COMMANDS = {
    Form.GZIP: "gunzip -c <{} >disk.raw",
    Form.BZIP2: "bunzip2 -c <{} >disk.raw",
    Form.XZ: "xz -dc <{} >disk.raw",
    Form.ZSTD: "zstd -dc <{} >disk.raw",
}


def of(head: bytes) -> Form:
    """Return the form of what begins with `head`, its first `HEAD_SIZE` bytes or all of them."""
    for form, offset, signature in _SIGNATURES:
        if head.startswith(signature, offset):
            return form
    return Form.RAW


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
