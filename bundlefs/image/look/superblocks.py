"""What a disk or a partition holds, by its superblock: kind, label, UUID and size.

Kinds are named as blkid(8) names them. Those that are usual in images are read whole; of others
the signature alone is known here. [Linux, include/uapi/linux and fs; util-linux, libblkid]
"""

import itertools
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from bundlefs.image.look.window import UnreadableError, Window


@dataclass(frozen=True, slots=True)
class System:
    """A file system, or what else a partition is used for; None where it is not told.

    Attributes:
        kind: as blkid names it.
        label: its own name for itself; anything may stand in it.
        uuid: as blkid writes it.
        size: bytes that it takes.
    """

    kind: str
    label: str | None = None
    uuid: str | None = None
    size: int | None = None


_EXT_MAGIC = 0xEF53
_HAS_JOURNAL, _JOURNAL_DEVICE, _WIDE = 0x4, 0x8, 0x80
_OF_EXT3 = 0x2 | 0x4 | 0x10
"""Incompatible features that ext3 has: types in folders, recovery, groups of descriptors."""
_OF_EXT3_TO_WRITE = 0x1 | 0x2 | 0x4
_BTRFS = 0x10000
_ISO = 0x8000
_PAGES = (4096, 8192, 16384, 65536)
_LVM_LABELS = 4

# Whose kind alone is told: where the signature stands, and what it is.
_SIGNATURES = (
    ("exfat", 3, b"EXFAT   "),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("jfs", 0x8000, b"JFS1"),
    ("reiserfs", 0x10034, b"ReIsEr"),
    ("nilfs2", 1030, b"\x34\x34"),
    ("linux_raid_member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("linux_raid_member", 0, b"\xfc\x4e\x2b\xa9"),
    ("bcache", 4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("hfsplus", 1024, b"H+\0\4"),
    ("ufs", 8192 + 1372, b"\x19\x01\x54\x19"),
)


def system(part: Window) -> System | None:
    """Return what is on a disk or in a partition, or None if it is nothing that is known here.

    Raises:
        OSError: the read failed.
    """
    for reader in _READERS:
        with suppress(UnreadableError):
            return reader(part)
    return _signed(part)


def _signed(part: Window) -> System | None:
    for kind, at, magic in _SIGNATURES:
        with suppress(UnreadableError):
            if part.read(at, len(magic)) == magic:
                return System(kind)
    return None


def _require(found: object, wanted: object) -> None:
    if found != wanted:
        raise UnreadableError("another")


def _text(raw: bytes) -> str | None:
    return raw.partition(b"\0")[0].decode("utf-8", "replace").rstrip() or None


def _uuid(raw: bytes) -> str | None:
    return str(UUID(bytes=raw)) if any(raw) else None


def _luks(part: Window) -> System:
    head = part.read(0, 512)
    _require(head[:6], b"LUKS\xba\xbe")
    label = _text(head[24:72]) if head[6:8] == b"\0\2" else None
    return System("crypto_LUKS", label, _text(head[168:208]))


def _lvm(part: Window) -> System:
    for sector in range(_LVM_LABELS):
        head = part.read(sector * 512, 512)
        if head.startswith(b"LABELONE") and head[24:32] == b"LVM2 001":
            break
    else:
        raise UnreadableError("another")
    [at] = struct.unpack_from("<I", head, 20)
    if at + 40 > len(head):
        raise UnreadableError("damaged")
    plain = head[at : at + 32].decode("ascii", "replace")
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    uuid = "-".join(plain[a:b] for a, b in itertools.pairwise(cuts))
    return System("LVM2_member", None, uuid, struct.unpack_from("<Q", head, at + 32)[0])


def _ext(part: Window) -> System:
    head = part.read(1024, 1024)
    _require(struct.unpack_from("<H", head, 56)[0], _EXT_MAGIC)
    blocks, shift = struct.unpack_from("<I16xI", head, 4)
    compatible, incompatible, writable = struct.unpack_from("<III", head, 92)
    if incompatible & _WIDE:
        blocks |= struct.unpack_from("<I", head, 0x150)[0] << 32
    if shift > 6:  # noqa: PLR2004  # 64 KiB
        raise UnreadableError("damaged")
    if incompatible & _JOURNAL_DEVICE:
        kind = "jbd"
    elif incompatible & ~_OF_EXT3 or writable & ~_OF_EXT3_TO_WRITE:
        kind = "ext4"
    else:
        kind = "ext3" if compatible & _HAS_JOURNAL else "ext2"
    return System(kind, _text(head[120:136]), _uuid(head[104:120]), blocks << 10 + shift)


def _xfs(part: Window) -> System:
    head = part.read(0, 512)
    magic, block, blocks = struct.unpack_from(">4sIQ", head)
    _require(magic, b"XFSB")
    _require(block in (1 << power for power in range(9, 17)), wanted=True)
    return System("xfs", _text(head[108:120]), _uuid(head[32:48]), block * blocks)


def _btrfs(part: Window) -> System:
    head = part.read(_BTRFS, 4096)
    _require(head[0x40:0x48], b"_BHRfS_M")
    [size] = struct.unpack_from("<Q", head, 0x70)
    return System("btrfs", _text(head[0x12B:0x22B]), _uuid(head[0x20:0x30]), size)


def _swap(part: Window) -> System:
    for page in _PAGES:
        if part.read(page - 10, 10) == b"SWAPSPACE2":
            _, last = struct.unpack("<II", part.read(1024, 8))
            head = part.read(1024, 44)
            return System("swap", _text(head[28:44]), _uuid(head[12:28]), (last + 1) * page)
    raise UnreadableError("another")


def _ntfs(part: Window) -> System:
    head = part.read(0, 512)
    _require(head[3:11], b"NTFS    ")
    [sector] = struct.unpack_from("<H", head, 11)
    sectors, serial = struct.unpack_from("<Q24xQ", head, 40)[0], head[72:80]
    return System("ntfs", None, serial[::-1].hex().upper(), sectors * sector)


def _fat(part: Window) -> System:
    head = part.read(0, 512)
    at = next((at for at in (82, 54) if head[at : at + 3] == b"FAT"), None)
    _require(head[510:], b"\x55\xaa")
    if at is None:
        raise UnreadableError("another")
    sector, small, large = struct.unpack_from("<H6xH11xI", head, 11)
    label = _text(head[at - 11 : at])
    serial = head[at - 15 : at - 11][::-1].hex().upper()
    uuid = f"{serial[:4]}-{serial[4:]}"
    return System("vfat", None if label == "NO NAME" else label, uuid, (small or large) * sector)


def _iso(part: Window) -> System:
    head = part.read(_ISO, 2048)
    _require(head[1:6], b"CD001")
    [blocks] = struct.unpack_from("<I", head, 80)
    return System("iso9660", _text(head[40:72]), None, blocks * 2048)


def _squashfs(part: Window) -> System:
    head = part.read(0, 48)
    _require(head[:4], b"hsqs")
    return System("squashfs", None, None, int.from_bytes(head[40:48], "little"))


_READERS: tuple[Callable[[Window], System], ...] = (
    _luks,
    _lvm,
    _ext,
    _xfs,
    _btrfs,
    _swap,
    _ntfs,
    _squashfs,
    _iso,
    _fat,
)
