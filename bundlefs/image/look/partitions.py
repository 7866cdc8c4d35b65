"""Partition tables: MBR with its chain of logical partitions, and GPT.

Partitions are numbered as Linux and sfdisk number them, and there are never more of them than
Linux takes note of. What contradicts itself is read as far as it can be, and `faults` says so.
[Linux, block/partitions/msdos.c and efi.c; UEFI 5.3]
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from bundlefs.image.look.window import UnreadableError, Window

MOST_PARTITIONS = 255
"""What Linux numbers on one disk."""

_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_TABLE, _MBR_END = 446, 510
_MBR_SECTOR = 512
_ACTIVE = 0x80
_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_FIRST_LOGICAL = 5
_MOST_LINKS = 100
"""Links of a chain without a partition that Linux follows one after the other."""

_GPT_HEADER = struct.Struct("<8sIII4xQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_SECTORS = (512, 4096)
_LARGEST_ARRAY = 1 << 20
_BIOS_BOOTABLE = 1 << 2

EFI = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_EFI_OF_MBR = 0xEF


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: bytes from the start of the disk.

    Attributes:
        start: in bytes.
        size: in bytes; what the table says, which may reach beyond the disk.
        kind: the type as a GPT has it, if any.
        number: as Linux counts.
        code: the type as sfdisk writes it: "83", or a GUID in capitals.
        name: what a GPT calls it; anything may stand in it.
        uuid: of the partition itself, in a GPT.
        bootable: whether it is marked so, for a BIOS.
    """

    start: int
    size: int
    kind: UUID | None
    number: int = 0
    code: str = ""
    name: str = ""
    uuid: UUID | None = None
    bootable: bool = False

    @property
    def stop(self) -> int:
        """The offset behind it."""
        return self.start + self.size

    @property
    def is_container(self) -> bool:
        """Whether it is the extended partition of an MBR, which has others in it and no data."""
        return self.code in ("5", "f", "85")


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table.

    Attributes:
        name: "MBR" or "GPT".
        partitions: in the order of their numbers.
        size: how many bytes the disk has by it.
        faults: what is wrong with it, in words.
        doubtful: whether it may be none: code of a boot sector, or what cannot be read.
    """

    name: str
    partitions: tuple[Partition, ...]
    size: int
    faults: tuple[str, ...] = ()
    doubtful: bool = False


def table(disk: Window) -> Table | None:
    """Return the partition table of a disk, or None if it has none that is beyond doubt.

    Raises:
        OSError: the read failed.
    """
    found = partition_table(disk)
    return None if found is None or found.doubtful else found


def partition_table(disk: Window) -> Table | None:
    """Return the partition table of a disk with all that is wrong with it, or None.

    Raises:
        OSError: the read failed.
    """
    try:
        mbr = disk.read(0, _MBR_SECTOR)
    except UnreadableError:
        return None
    if not _is_boot_sector(mbr):
        return None
    entries = _entries(mbr)
    if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
        return _with_faults(_gpt(disk), disk.size)
    found = _mbr(disk, entries)
    return found and _with_faults(found, disk.size)


def _is_boot_sector(sector: bytes) -> bool:
    return sector[_MBR_END:] == b"\x55\xaa"


def _entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """Return flag, type, first sector and number of sectors of the four entries."""
    return [_MBR_ENTRY.unpack_from(sector, _MBR_TABLE + 16 * number) for number in range(4)]


def _mbr(disk: Window, entries: list[tuple[int, int, int, int]]) -> Table | None:
    """Read the entries; a boot sector of a file system has code or text in their place."""
    if any(flag not in (0, _ACTIVE) for flag, _, _, _ in entries):
        return None
    used = [(number, *entry) for number, entry in enumerate(entries, 1) if entry[1]]
    if not used or any(not size for *_, size in used):
        return None
    found = [_of_mbr(number, 0, entry) for number, *entry in used]
    size = max(one.stop for one in found)
    doubtful = any(not one.start for one in found) or bool(_overlaps(found))
    faults: list[str] = []
    for container in [one for one in found if one.is_container]:
        first = max(found[-1].number + 1, _FIRST_LOGICAL)
        found += _logical(disk, container, first, faults)
    return Table("MBR", tuple(found), size, tuple(faults), doubtful)


def _of_mbr(number: int, base: int, entry: list[int] | tuple[int, ...]) -> Partition:
    flag, kind, start, size = entry
    return Partition(
        (base + start) * _MBR_SECTOR,
        size * _MBR_SECTOR,
        EFI if kind == _EFI_OF_MBR else None,
        number,
        f"{kind:x}",
        bootable=flag == _ACTIVE,
    )


def _logical(
    disk: Window, container: Partition, first: int, faults: list[str]
) -> Iterator[Partition]:
    """Yield the partitions in an extended one: a chain of sectors like the MBR."""
    base = container.start // _MBR_SECTOR
    link, seen, number = base, set[int](), first
    while number <= MOST_PARTITIONS and len(seen) < _MOST_LINKS + number:
        if link in seen:
            faults.append("the chain of its logical partitions goes in a circle")
            return
        seen.add(link)
        try:
            sector = disk.read(link * _MBR_SECTOR, _MBR_SECTOR)
        except UnreadableError:
            faults.append("the chain of its logical partitions leads out of the disk")
            return
        if not _is_boot_sector(sector):
            faults.append("the chain of its logical partitions breaks off")
            return
        entries = [entry for entry in _entries(sector)[:2] if entry[3]]
        for entry in entries:
            if entry[1] and entry[1] not in _EXTENDED and number <= MOST_PARTITIONS:
                yield _of_mbr(number, link, entry)
                number += 1
        onward = next((start for _, kind, start, _ in entries if kind in _EXTENDED), None)
        if onward is None:
            return
        link = base + onward
    faults.append(f"it has more partitions than the {MOST_PARTITIONS} that Linux numbers")


def _gpt(disk: Window) -> Table:
    """Read the first header that is whole: at the start of the disk, else at its end."""
    seen: list[str] = []
    for sector in _SECTORS:
        for where in (sector, disk.size - sector):
            try:
                return _checked_gpt(disk, where, sector, seen)
            except UnreadableError as error:
                seen.append(str(error))
    real = [why for why in seen if why not in ("no header", "beyond the end")]
    why = real[0] if real else "the MBR speaks of one, and there is no header of it"
    return Table("GPT", (), 0, (why,), doubtful=True)


def _checked_gpt(disk: Window, where: int, sector: int, seen: list[str]) -> Table:
    """Read a table if its checksums hold [UEFI 5.3.2].

    Raises:
        UnreadableError: there is none, or it is not whole.
    """
    header = disk.read(where, _MBR_SECTOR)
    magic, _, length, crc, own, other, _, _, _, first, count, width, array_crc = (
        _GPT_HEADER.unpack_from(header)
    )
    if magic != b"EFI PART":
        raise UnreadableError("no header")
    if (
        not _GPT_HEADER.size <= length <= len(header)
        or zlib.crc32(header[:16] + bytes(4) + header[20:length]) != crc
        or own * sector != where
    ):
        raise UnreadableError("its header is damaged")
    if width < _GPT_ENTRY.size or width % 8 or count * width > _LARGEST_ARRAY:
        raise UnreadableError(f"it claims {count} entries of {width} bytes, which is not read")
    data = disk.read(first * sector, count * width)
    if zlib.crc32(data) != array_crc:
        raise UnreadableError("its list of partitions is damaged")
    faults = [] if where == sector else [f"{seen[0]}; its copy at the end of the disk was read"]
    found = list(itertools.islice(_of_gpt(data, width, sector), MOST_PARTITIONS + 1))
    if len(found) > MOST_PARTITIONS:
        faults.append(f"it has more partitions than the {MOST_PARTITIONS} that Linux numbers")
    last = other if where == sector else own
    return Table("GPT", tuple(found[:MOST_PARTITIONS]), (last + 1) * sector, tuple(faults))


def _of_gpt(data: bytes, width: int, sector: int) -> Iterator[Partition]:
    for number, at in enumerate(range(0, len(data) - width + 1, width), 1):
        kind, own, first, last, flags, name = _GPT_ENTRY.unpack_from(data, at)
        if any(kind):
            yield Partition(
                first * sector,
                max(last + 1 - first, 0) * sector,
                UUID(bytes_le=kind),
                number,
                str(UUID(bytes_le=kind)).upper(),
                name.decode("utf-16-le", "replace").partition("\0")[0],
                UUID(bytes_le=own),
                bool(flags & _BIOS_BOOTABLE),
            )


def _with_faults(found: Table, disk_size: int) -> Table:
    """Return the table with what is wrong with the places of its partitions."""
    beyond = [one for one in found.partitions if one.stop > disk_size]
    empty = [one for one in found.partitions if not one.size]
    faults = [
        *found.faults,
        *(f"partition {one.number} reaches beyond the end of the disk" for one in beyond),
        *(f"partition {one.number} has no bytes" for one in empty),
        *_overlaps([one for one in found.partitions if not one.is_container]),
    ]
    return replace(found, faults=tuple(faults))


def _overlaps(found: list[Partition]) -> list[str]:
    """Return which partitions share bytes with one that begins before them."""
    faults, last = [], None
    for one in sorted(found, key=lambda one: (one.start, one.stop)):
        if last and one.size and one.start < last.stop:
            faults.append(f"partitions {last.number} and {one.number} overlap")
        if last is None or one.stop > last.stop:
            last = one
    return faults
