"""What makes an image doubtful, in words: a bundle of it can be made, and may be of no use."""

import struct

from bundlefs.image.look.ext import Ext
from bundlefs.image.look.partitions import table
from bundlefs.image.look.window import Budget, Peekable, UnreadableError, Window

_SECTOR = 512


def doubts(image: Peekable) -> list[str]:
    """Say what is odd about the size of an image.

    Raises:
        OSError: a read failed.
        BundlefsError: same, for an image that is not raw.
    """
    found = []
    if image.size % _SECTOR:
        found.append(
            f"has {image.size} bytes, which is no multiple of {_SECTOR}: it may be cut short, or is"
            " no raw image"
        )
    what, size = _told(Window(image.peek, image.size, 0, Budget()))
    if size > image.size:
        found.append(
            f"has {image.size} bytes, and its {what} says {size}: it is cut short; get it anew"
        )
    return found


def _told(disk: Window) -> tuple[str, int]:
    """Return what tells the size of a disk, and how many bytes it says; 0 if nothing does."""
    partitions = table(disk)
    if partitions:
        return f"partition table ({partitions.name})", partitions.size
    for kind, size in (("ext", _ext), ("XFS", _xfs), ("squashfs", _squashfs)):
        try:
            return f"file system ({kind})", size(disk)
        except UnreadableError:
            continue
    return "", 0


def _ext(disk: Window) -> int:
    return Ext(disk).size


def _xfs(disk: Window) -> int:
    magic, block, blocks = struct.unpack(">4sIQ", disk.read(0, 16))
    if magic != b"XFSB" or block not in (1 << power for power in range(9, 17)):
        raise UnreadableError("not XFS")
    return int(block * blocks)


def _squashfs(disk: Window) -> int:
    head = disk.read(0, 48)
    magic, major = head[:4], head[28:30]
    if magic != b"hsqs" or major != b"\4\0":
        raise UnreadableError("not squashfs")
    return int.from_bytes(head[40:48], "little")
