"""Free space of ext2, ext3 and ext4 that holds old data, by samples.

A file that was deleted leaves its bytes in blocks that are free from then on. They travel with
the image, keys included. Which blocks are free the bitmaps tell; a sample of those is looked at.
"""

import itertools
import random
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bundlefs.base.spans import Span, ceil_div
from bundlefs.image.look.window import UnreadableError, Window

SAMPLES = 2048
_MOST_GROUPS = 16384
_MAGIC = 0xEF53
_WIDE, _META_GROUPS, _JOURNAL_DEVICE = 0x80, 0x10, 0x8
_BIG_ALLOCATION, _SPARSE_SUPER, _CHECKSUMS = 0x200, 0x1, 0x10 | 0x400
_UNUSED_BITMAP = 0x2


@dataclass(frozen=True, slots=True)
class OldData:
    """Old data in free space, in bytes.

    Attributes:
        free: how much is free.
        old: about how much of that is not zero.
        sampled: how many free blocks were looked at; all of them if `whole`.
        whole: whether that was each free block.
    """

    free: int
    old: int
    sampled: int
    whole: bool


class Free:
    """The bitmaps of a file system.

    Raises:
        UnreadableError: it is not ext, or has features that are not read here.
        OSError: the read failed.
    """

    def __init__(self, part: Window) -> None:
        self._part = part
        head = part.read(1024, 1024)
        (inodes, blocks, free, self._first, shift, self._per_group, inodes_per_group) = (
            struct.unpack_from("<II4xI4xII4xI4xI", head, 0)
        )
        del inodes
        if struct.unpack_from("<H", head, 56)[0] != _MAGIC or shift > 6:  # noqa: PLR2004  # 64 KiB
            raise UnreadableError("not ext")
        incompatible, self._writable = struct.unpack_from("<II", head, 96)
        if incompatible & (_META_GROUPS | _JOURNAL_DEVICE) or self._writable & _BIG_ALLOCATION:
            raise UnreadableError("its bitmaps are not read here")
        self.block = 1024 << shift
        self._descriptor = 32
        if incompatible & _WIDE:
            blocks |= struct.unpack_from("<I", head, 0x150)[0] << 32
            free |= struct.unpack_from("<I", head, 0x158)[0] << 32
            self._descriptor = struct.unpack_from("<H", head, 254)[0]
        [inode_size] = struct.unpack_from("<H", head, 88)
        [self._reserved] = struct.unpack_from("<H", head, 0xCE)
        self._table = ceil_div(inodes_per_group * (inode_size or 128), self.block)
        self.blocks, self.free = blocks, free * self.block
        self._groups = self._counted_groups()
        self._descriptors = self._read_descriptors()
        self._metadata = self._metadata_spans()

    def _counted_groups(self) -> int:
        if not self._per_group or self._per_group > 8 * self.block or self.blocks <= self._first:
            raise UnreadableError("damaged")
        if self.blocks * self.block > self._part.size or self._descriptor not in (32, 64):
            raise UnreadableError("damaged, or cut short")
        groups = ceil_div(self.blocks - self._first, self._per_group)
        if groups > _MOST_GROUPS:
            raise UnreadableError("it is too large")
        return groups

    def _read_descriptors(self) -> list[tuple[int, int, int, int]]:
        """Return for each group where bitmaps and inodes are, and its flags."""
        start = (1024 // self.block + 1) * self.block
        data = self._part.read(start, self._groups * self._descriptor)
        found = []
        for at in range(0, len(data), self._descriptor):
            *places, flags = struct.unpack_from("<III6xH", data, at)
            if self._descriptor > 32:  # noqa: PLR2004  # with high halves
                highs = struct.unpack_from("<III", data, at + 32)
                places = [low | high << 32 for low, high in zip(places, highs, strict=True)]
            found.append((*places, flags if self._writable & _CHECKSUMS else 0))
        return found

    def _metadata_spans(self) -> list[Span]:
        """Return where the file system keeps what its unused bitmaps do not tell."""
        found = []
        backup = 1 + ceil_div(self._groups * self._descriptor, self.block) + self._reserved
        for group, (blocks, inodes, table, _) in enumerate(self._descriptors):
            found += [Span(blocks, blocks + 1), Span(inodes, inodes + 1)]
            found.append(Span(table, table + self._table))
            if not self._writable & _SPARSE_SUPER or _has_backup(group):
                start = self._first + group * self._per_group
                found.append(Span(start, start + backup))
        return sorted(found)

    def among(self, numbers: Sequence[int]) -> Iterator[int]:
        """Yield those of some blocks, in order, that are free."""
        group, bitmap = -1, b""
        for number in numbers:
            own, bit = divmod(number - self._first, self._per_group)
            if own != group:
                group, bitmap = own, self._bitmap(own)
            if not bitmap[bit >> 3] >> (bit & 7) & 1 and not self._is_metadata(number):
                yield number

    def _bitmap(self, group: int) -> bytes:
        blocks, _, _, flags = self._descriptors[group]
        size = self._per_group // 8 + 1
        if flags & _UNUSED_BITMAP:
            return bytes(size)
        return self._part.read(blocks * self.block, self.block).ljust(size, b"\xff")

    def _is_metadata(self, number: int) -> bool:
        at = bisect_right(self._metadata, number, key=lambda span: span.start)
        return any(number < span.stop for span in self._metadata[max(at - 4, 0) : at])


def _has_backup(group: int) -> bool:
    """Return whether a group has a copy of the superblock: 0, 1 and powers of 3, 5 and 7."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def old_data(part: Window, offset: int, extents: Sequence[Span]) -> OldData:
    """Look how much of the free space of a file system is not zero.

    Args:
        part: the file system.
        offset: where that lies in the image.
        extents: where the image has data; all else is zeros, and is not read.

    Raises:
        UnreadableError: the file system is not read here, or is damaged.
        OSError: the read failed.
    """
    free = Free(part)
    numbers, whole = _picked(free.blocks)
    starts = [extent.start for extent in extents]
    looked = old = 0
    for number in free.among([one for one in numbers if one]):
        looked += 1
        start = number * free.block
        at = bisect_right(starts, offset + start + free.block - 1) - 1
        if at >= 0 and extents[at].stop > offset + start and any(part.read(start, free.block)):
            old += 1
    share = old / len(numbers) if numbers else 0
    return OldData(free.free, int(share * free.blocks) * free.block, looked, whole)


def _picked(blocks: int) -> tuple[list[int], bool]:
    """Return numbers of blocks to look at, one from each of as many runs, or all of them."""
    if blocks <= 4 * SAMPLES:
        return list(range(1, blocks)), True
    chance = random.Random(blocks)  # noqa: S311  # the same each time is what is wanted
    cuts = [blocks * step // SAMPLES for step in range(SAMPLES + 1)]
    picked = (chance.randrange(max(a, 1), b) for a, b in itertools.pairwise(cuts))
    return list(picked), False
