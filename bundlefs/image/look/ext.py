"""Files in an ext2, ext3 or ext4 file system, by path [Linux, Documentation/filesystems/ext4]."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from bundlefs.image.look.window import UnreadableError, Window

_MAGIC = 0xEF53
_META_GROUPS, _WIDE, _JOURNAL = 0x10, 0x80, 0x8
_EXTENTS, _INLINE, _ENCRYPTED = 0x80000, 0x10000000, 0x800
_ROOT = 2
_FOLDER, _FILE, _LINK = 0x4000, 0x8000, 0xA000
_EXTENT_MAGIC = 0xF30A
_UNWRITTEN = 0x8000
_DEEPEST = 5
_MOST_LINKS = 20
_LARGEST_FOLDER = 4 << 20
_SHORT_LINK = 60
_DIRECT = 12


@dataclass(frozen=True, slots=True)
class Inode:
    """What an inode says: kind, flags, size in bytes, and where the blocks are."""

    kind: int
    flags: int
    size: int
    blocks: bytes


class Ext:
    """An ext2, ext3 or ext4 file system.

    Attributes:
        size: bytes that it takes.

    Raises:
        UnreadableError: it is none, or has features that are not read here.
        OSError: the read failed.
    """

    def __init__(self, disk: Window) -> None:
        self._disk = disk
        head = disk.read(1024, 1024)
        [magic] = struct.unpack_from("<H", head, 56)
        if magic != _MAGIC:
            raise UnreadableError("not ext")
        blocks, shift = struct.unpack_from("<I16xI", head, 4)
        self._per_group, revision, self._inode_size = struct.unpack_from("<I32xI8xH", head, 40)
        [features] = struct.unpack_from("<I", head, 96)
        if shift > 6 or not self._per_group or features & (_META_GROUPS | _JOURNAL):  # noqa: PLR2004  # 64 KiB
            raise UnreadableError("not read here")
        self._block = 1024 << shift
        if not revision:
            self._inode_size = 128
        self._descriptor = 32
        if features & _WIDE:
            [high] = struct.unpack_from("<I", head, 0x150)
            blocks |= high << 32
            [self._descriptor] = struct.unpack_from("<H", head, 254)
        if self._inode_size < 128 or self._descriptor not in (32, 64):  # noqa: PLR2004  # the least
            raise UnreadableError("not read here")
        self.size: int = blocks * self._block

    def text(self, path: str, most: int) -> bytes:
        """Return a file, or as much of it as `most` bytes; links are followed.

        Raises:
            UnreadableError: there is none, or it is no regular file.
            OSError: the read failed.
        """
        inode = self._find(path)
        if inode.kind != _FILE:
            raise UnreadableError("no file")
        most = min(most, inode.size)
        found = b""
        for block in self._content(inode):
            found += block
            if len(found) >= most:
                break
        return found[:most]

    def _find(self, path: str) -> Inode:
        """Return the inode of an absolute path."""
        trail = [_ROOT]
        names, links = path.split("/")[::-1], 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                trail = trail[:-1] or [_ROOT]
                continue
            number = self._entry(self._inode(trail[-1]), name)
            inode = self._inode(number)
            if inode.kind != _LINK:
                trail.append(number)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise UnreadableError("links in a circle")
            target = self._target(inode)
            trail = [_ROOT] if target.startswith("/") else trail
            names += target.split("/")[::-1]
        return self._inode(trail[-1])

    def _target(self, inode: Inode) -> str:
        short = inode.size < _SHORT_LINK and not inode.flags & _EXTENTS
        data = inode.blocks if short else next(self._content(inode), b"")
        return data[: min(inode.size, self._block)].decode("utf-8", "surrogateescape")

    def _entry(self, folder: Inode, name: str) -> int:
        """Return the number of the inode of a name."""
        wanted = name.encode("utf-8", "surrogateescape")
        if folder.kind != _FOLDER:
            raise UnreadableError("no folder")
        read = 0
        for block in self._content(folder):
            for found, number in _entries(block):
                if found == wanted:
                    return number
            read += len(block)
            if read >= min(folder.size, _LARGEST_FOLDER):
                break
        raise UnreadableError("no such file")

    def _inode(self, number: int) -> Inode:
        group, place = divmod(number - 1, self._per_group)
        # In the block behind the superblock's, which is the second where blocks have 1 KiB.
        table_start = (1024 // self._block + 1) * self._block
        where = table_start + group * self._descriptor
        descriptor = self._disk.read(where, self._descriptor)
        [table] = struct.unpack_from("<I", descriptor, 8)
        if self._descriptor > 32:  # noqa: PLR2004  # with high halves
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        data = self._disk.read(table * self._block + place * self._inode_size, 128)
        mode, low, flags, blocks, high = struct.unpack_from("<H2xI24xI4x60s8xI", data)
        if flags & (_INLINE | _ENCRYPTED):
            raise UnreadableError("not read here")
        kind = mode & 0xF000
        return Inode(kind, flags, low | (high << 32 if kind == _FILE else 0), blocks)

    def _content(self, inode: Inode) -> Iterator[bytes]:
        """Yield the blocks of a file that are there, in order."""
        found = (
            self._extents(inode.blocks, _DEEPEST)
            if inode.flags & _EXTENTS
            else _mapped(inode.blocks)
        )
        for number in found:
            yield self._disk.read(number * self._block, self._block)

    def _extents(self, node: bytes, depth: int) -> Iterator[int]:
        magic, count, _, height = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or height > depth or 12 * (count + 1) > len(node):
            raise UnreadableError("no extents")
        for at in range(12, 12 * (count + 1), 12):
            if height:
                low, high = struct.unpack_from("<4xIH", node, at)
                below = self._disk.read((low | high << 32) * self._block, self._block)
                yield from self._extents(below, height - 1)
                continue
            length, high, low = struct.unpack_from("<4xHHI", node, at)
            start = low | high << 32
            if length <= _UNWRITTEN:
                yield from range(start, start + length)


def _mapped(blocks: bytes) -> Iterator[int]:
    """Yield the blocks that are named in the inode itself, as ext2 and ext3 have them."""
    for number in struct.unpack_from(f"<{_DIRECT}I", blocks):
        if number:
            yield number
    if any(blocks[_DIRECT * 4 :]):
        raise UnreadableError("not read here")


def _entries(block: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield names and numbers of the inodes in a block of a folder."""
    at = 0
    while at + 8 <= len(block):
        number, length, name = struct.unpack_from("<IHB", block, at)
        if length < 8:  # noqa: PLR2004  # as long as an entry without a name
            return
        if number:
            yield block[at + 8 : at + 8 + name], number
        at += length
