"""Which partitions of an opened bundle's image are shown as files of their own.

The names are decided once, before the bundle is shown, and by what is quickly reached: nobody waits
for a pass over the bundle for the sake of a partition table. Where that does not lead to all of
them, none is shown. The table is untrusted: partitions that contradict the disk, or each other, are
left out.
"""

import logging
from typing import Protocol

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.image.look.partitions import Partition, Table, partition_table
from bundlefs.image.look.superblocks import system
from bundlefs.image.look.window import Budget, Window

log = logging.getLogger(__name__)

_MOST_READS = 200
"""Each may decrypt and inflate a block in a part of its own, which is digested first."""


class Disk(Protocol):
    """What is needed of an opened bundle."""

    name: str
    size: int

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes, fewer where more would take a pass over the bundle."""


def partitions(disk: Disk) -> dict[int, Span]:
    """Return where each partition is that is shown, by the number that Linux gives it.

    A disk without a table that has a file system is one partition, the whole of it.
    """
    near = _Near(disk)
    try:
        found = _find(disk.name, Window(near.peek, disk.size, 0, Budget()))
    except (BundleError, OSError) as error:
        log.warning("%s: its partitions are not shown as files: %s", disk.name, error)
        return {}
    if near.left:
        log.warning(
            "%s: its partitions are not shown as files: the table leads too far into it",
            disk.name,
        )
        return {}
    return found


class _Near:
    """The image as far as it is quickly reached; `left` if anything else was asked for."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._reads = 0
        self.left = False

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes, fewer where they are not quickly reached."""
        self._reads += 1
        data = self._disk.peek(offset, length) if self._reads <= _MOST_READS else b""
        self.left = self.left or len(data) < length
        return data


def _find(name: str, disk: Window) -> dict[int, Span]:
    table = partition_table(disk)
    # What looks like a table without partitions may be the boot sector of a file system.
    if (not table or table.doubtful) and system(disk):
        return {1: Span(0, disk.size)}
    for fault in table.faults if table else ():
        log.warning("%s: its partition table: %s", name, fault)
    return _shown(name, table, disk.size) if table and not table.doubtful else {}


def _shown(name: str, table: Table, size: int) -> dict[int, Span]:
    claimed = [one for one in table.partitions if one.size and not one.is_container]
    wrong = {one.number for one in claimed if one.stop > size} | _overlapping(claimed)
    if wrong:
        numbers = ", ".join(map(str, sorted(wrong)))
        log.warning("%s: of its partitions are not shown as files: %s", name, numbers)
    return {one.number: Span(one.start, one.stop) for one in claimed if one.number not in wrong}


def _overlapping(claimed: list[Partition]) -> set[int]:
    """Return the numbers of partitions that share bytes with another."""
    found: set[int] = set()
    last: Partition | None = None
    for one in sorted(claimed, key=lambda one: one.start):
        if last and one.start < last.stop:
            found |= {one.number, last.number}
        if last is None or one.stop > last.stop:
            last = one
    return found
