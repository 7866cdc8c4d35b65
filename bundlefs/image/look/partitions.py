"""Partition tables: MBR and GPT."""

import itertools
import struct
import zlib
from dataclasses import dataclass
from uuid import UUID

from bundlefs.image.look.window import UnreadableError, Window

_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_TABLE, _MBR_END = 446, 510
_PROTECTIVE = 0xEE
_GPT_HEADER = struct.Struct("<8sIII4xQQQQ16sQIII")
_SECTORS = (512, 4096)
_MOST_ENTRIES, _LONGEST_ENTRY = 256, 1024

EFI = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_EFI_OF_MBR = 0xEF


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: bytes from the start of the disk, and the type as a GPT has it, if any."""

    start: int
    size: int
    kind: UUID | None


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table: its name, its partitions, and how many bytes the disk has by it."""

    name: str
    partitions: tuple[Partition, ...]
    size: int


def table(disk: Window) -> Table | None:
    """Return the partition table of a disk, or None if it has none.

    Raises:
        OSError: the read failed.
    """
    try:
        mbr = disk.read(0, 512)
        if mbr[_MBR_END:] != b"\x55\xaa":
            return None
        entries = [_MBR_ENTRY.unpack_from(mbr, _MBR_TABLE + 16 * number) for number in range(4)]
        if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
            return _gpt(disk)
        return _mbr(entries)
    except UnreadableError:
        return None


def _mbr(entries: list[tuple[int, int, int, int]]) -> Table | None:
    """Read the entries; a boot sector of a file system has code or text in their place."""
    if any(flag not in (0, 0x80) for flag, _, _, _ in entries):
        return None
    used = [(kind, start, size) for _, kind, start, size in entries if kind]
    if not used or any(not start or not size for _, start, size in used):
        return None
    ordered = sorted((start, size) for _, start, size in used)
    if any(a + size > b for (a, size), (b, _) in itertools.pairwise(ordered)):
        return None
    found = (
        Partition(start * 512, size * 512, EFI if kind == _EFI_OF_MBR else None)
        for kind, start, size in used
    )
    return Table("MBR", tuple(found), sum(ordered[-1]) * 512)


def _gpt(disk: Window) -> Table | None:
    for sector in _SECTORS:
        header = disk.read(sector, 512)
        if header.startswith(b"EFI PART"):
            return _checked_gpt(disk, header, sector)
    return None


def _checked_gpt(disk: Window, header: bytes, sector: int) -> Table | None:
    """Read a table if its header's checksum holds [UEFI 5.3.2]."""
    _, _, length, crc, _, backup, _, _, _, first, count, width, _ = _GPT_HEADER.unpack_from(header)
    if not _GPT_HEADER.size <= length <= len(header):
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != crc:
        return None
    if not 128 <= width <= _LONGEST_ENTRY or count > _MOST_ENTRIES:  # noqa: PLR2004  # by the format
        return None
    data = disk.read(first * sector, count * width)
    entries = (data[at : at + width] for at in range(0, len(data), width))
    found = (_entry(entry, sector) for entry in entries if any(entry[:16]))
    return Table("GPT", tuple(found), (backup + 1) * sector)


def _entry(entry: bytes, sector: int) -> Partition:
    first, last = struct.unpack_from("<QQ", entry, 32)
    size = max(last + 1 - first, 0)
    return Partition(first * sector, size * sector, UUID(bytes_le=entry[:16]))
