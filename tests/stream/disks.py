"""Disks that `bundlefs inspect` is asked about: one of each kind, roots of systems, boot code."""

import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.support import images
from tests.support.systems import X64, system
from tests.support.tools import run

MIB = images.MIB
CORPUS = Path(__file__).parents[1] / "corpus/fat"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
UUID = "6b3c5f8e-0f6a-4f3c-9a51-3d1f7f0f6b10"
CODE = b"\xeb\x63\x90" + bytes(range(1, 200))


def made(*command: str, size: int = 20 * MIB) -> Callable[[Path], object]:
    """Return a function that makes an image with a tool."""

    def make(path: Path) -> None:
        images.sparse_image(path, size, {})
        path.chmod(0o600)
        run([*command, path])

    return make


def luks(path: Path) -> None:
    """Write the header of an encrypted disk."""
    head = b"LUKS\xba\xbe\0\2" + (16384).to_bytes(8, "big") + bytes(8) + b"secrets".ljust(48, b"\0")
    head += b"sha256".ljust(32, b"\0") + bytes(64) + UUID.encode().ljust(40, b"\0")
    images.sparse_image(path, 20 * MIB, {0: head.ljust(4096, b"\0")})


def lvm(path: Path) -> None:
    """Write a physical volume's label [LVM2, lib/format_text/layout.h]."""
    body = struct.pack("<I8s32sQ", 32, b"LVM2 001", b"0123456789abcdefghijklmnopqrstuv", 20 * MIB)
    body = body.ljust(492, b"\0")
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    images.sparse_image(path, 20 * MIB, {512: struct.pack("<8sQI", b"LABELONE", 1, crc) + body})


def iso(path: Path) -> None:
    """Write a medium with one file."""
    folder = path.with_name("iso-tree")
    folder.mkdir()
    (folder / "readme").write_text("read me")
    run(["genisoimage", "-quiet", "-V", "MEDIUM", "-o", path, folder])


def fat(bits: int) -> Callable[[Path], object]:
    """Return a function that writes a FAT file system of the corpus."""
    data = lzma.decompress((CORPUS / f"fat{bits}.xz").read_bytes())
    return lambda path: path.write_bytes(data)


KINDS: dict[str, Callable[[Path], object]] = {
    "ext2": made("mke2fs", "-q", "-F", "-t", "ext2", "-L", "two"),
    "ext3": made("mke2fs", "-q", "-F", "-t", "ext3", "-L", "three"),
    "ext4": made("mke2fs", "-q", "-F", "-t", "ext4", "-L", "r\u00f6\u00f6t"),
    "xfs": made("mkfs.xfs", "-q", "-L", "extents", size=320 * MIB),
    "btrfs": made("mkfs.btrfs", "-q", "-L", "b-tree", size=128 * MIB),
    "swap": made("mkswap", "-q", "-L", "swapped"),
    "crypto_LUKS": luks,
    "LVM2_member": lvm,
    "iso9660": iso,
    "vfat": fat(16),
}


def root(folder: Path, fstab: str = "", number: int = X64) -> Path:
    """Make the root of a system with an fstab."""
    path = system(folder / "root", number)
    (folder / "fstab").write_text(fstab)
    commands = f"mkdir etc\nwrite {folder}/fstab etc/fstab\n"
    run(["debugfs", "-w", "-f", "-", path], data=commands.encode())
    return path


def with_code(path: Path) -> Path:
    """Put a boot loader's code in the first sector."""
    with path.open("r+b") as file:
        file.write(CODE)
    return path
