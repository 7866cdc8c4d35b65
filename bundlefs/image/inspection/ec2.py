"""What EC2 will make of a disk: each remark has a reason and a remedy.

Codes are for programs, and stay as they are. A `warning` is about what will most likely not work
or tells something to others; a `note` is what to know, or to check.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bundlefs.image.inspection.disk import VOLUMES, Disk, Place, name
from bundlefs.image.look.boot import BIOS_BOOT, Boot
from bundlefs.image.look.fstab import Known, missing
from bundlefs.image.look.partitions import Partition

MAX_ROOT_SIZE = 10 << 30
"""EC2 refuses a root image larger than 10 GiB [ec2-ami-tools bundleimage.rb MAX_SIZE]."""

_PROCESSORS = ("x86_64", "i386")
"""Those of the instance types whose root may be an instance store [contrib/ec2.md]."""

_NO_CONTENT = {BIOS_BOOT}
_NO_CONTENT_CODES = {
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B",  # PReP
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",  # Microsoft's reserved one
    "41",
}
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to know.

    Attributes:
        code: what it is about, for programs.
        level: "warning" or "note".
        text: what is so, and why it matters.
        remedy: what to do.
    """

    code: str
    level: str
    text: str
    remedy: str


def remarks(disk: Disk) -> tuple[Remark, ...]:
    """Return what EC2 will make of a disk, what is worst first."""
    found = [
        *_size(disk),
        *_table(disk),
        *_start(disk),
        *_systems(disk),
        *_architecture(disk),
        *_fstabs(disk),
        *_old(disk),
    ]
    return tuple(sorted(found, key=lambda one: one.level != "warning"))


def virtualization(disk: Disk) -> str | None:
    """Return "hvm" or "paravirtual" as the disk's form suggests; None if nothing does."""
    if disk.table or disk.other_table:
        return "hvm"
    return "paravirtual" if _is_bare(disk) else None


def _is_bare(disk: Disk) -> bool:
    """Return whether a disk without a table is one file system."""
    kinds = (place.system.kind for place in disk.places if place.system)
    return any(kind not in VOLUMES and kind != "swap" for kind in kinds)


def _size(disk: Disk) -> Iterator[Remark]:
    if (disk.size or 0) > MAX_ROOT_SIZE:
        yield Remark(
            "size",
            "warning",
            f"the image has {disk.size} bytes, and EC2 takes root images of at most 10 GiB"
            f" ({MAX_ROOT_SIZE})",
            "make its file system and its partition smaller (resize2fs, sfdisk), then the file"
            " (truncate)",
        )
    for doubt in disk.doubts:
        yield Remark("cut-short", "warning", f"the image {doubt}", "see that it is whole")


def _table(disk: Disk) -> Iterator[Remark]:
    if disk.table and disk.table.faults:
        faults = disk.table.faults
        more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        yield Remark(
            "partition-table",
            "warning",
            f"its {disk.table.name} is damaged or odd: {'; '.join(faults[:_MOST_NAMED])}{more}",
            "look at it with sfdisk --verify or sgdisk --verify, and mend it",
        )


def _start(disk: Disk) -> Iterator[Remark]:
    if disk.other_table or (disk.table and disk.table.doubtful):
        return
    if disk.boot and disk.table:
        yield from no_start(disk.boot, disk.table.name)
        yield Remark(
            "virtualization",
            "note",
            "it has a partition table: register it as hvm. A paravirtual instance takes a bare"
            " file system",
            "for paravirtual (--kernel), bundle the root partition alone",
        )
    elif _is_bare(disk):
        yield Remark(
            "virtualization",
            "note",
            "it has no partition table: that is what a paravirtual instance takes, with --kernel."
            " As hvm nothing starts from it",
            "for hvm, make a disk with a partition table and a boot loader",
        )


def no_start(found: Boot, kind: str) -> Iterator[Remark]:
    """Yield what keeps an HVM instance from starting from a disk with a table of this kind."""
    if not found.at_all:
        yield Remark(
            "boot-loader",
            "warning",
            "it has a partition table and no boot loader: there is no code in its first sector,"
            " and no EFI system partition, so nothing starts as hvm",
            "install one (grub-install) in the image",
        )
    elif not found.code:
        yield Remark(
            "boot-loader",
            "warning",
            "it starts by UEFI alone: there is no code in its first sector, and instance types"
            " whose root may be an instance store start by BIOS",
            "install a loader for a BIOS as well (grub-install --target=i386-pc)",
        )
    elif kind == "GPT" and not found.marked:
        yield Remark(
            "boot-loader",
            "note",
            "it has a GPT and code in its first sector, but no BIOS boot partition, as GRUB needs,"
            " and none that is marked as bootable, as other loaders do",
            "see that it starts in a virtual machine with a BIOS",
        )


def _systems(disk: Disk) -> Iterator[Remark]:
    found = [name(place) for place in disk.places if _is_unknown(disk, place)]
    if not found:
        return
    listed = ", ".join(found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if found[_MOST_NAMED:] else ""
    has = "has" if len(found) == 1 else "have"
    yield Remark(
        "unknown-file-system",
        "warning",
        f"{listed}{more} {has} no file system that is known: it may be empty, encrypted or damaged",
        "see what it is with wipefs or file -s; if it is not needed, leave it out",
    )


def _is_unknown(disk: Disk, place: Place) -> bool:
    """Return whether nothing is known to be where something should be."""
    if place.system or not place.looked_at or not place.size:
        return False
    return not (_needs_none(place.partition) if place.partition else disk.other_table)


def _needs_none(partition: Partition) -> bool:
    return (
        partition.is_container
        or partition.kind in _NO_CONTENT
        or partition.code in _NO_CONTENT_CODES
    )


def _architecture(disk: Disk) -> Iterator[Remark]:
    about = disk.architecture
    if about is None or not about.structured:
        return
    if about.name is None:
        yield Remark(
            "architecture",
            "note",
            f"the architecture of its code is not seen ({about.why}): a bundle says that of the"
            " host that makes it",
            "name it with --arch",
        )
    elif about.name not in _PROCESSORS:
        yield Remark(
            "architecture",
            "warning",
            f"it has code for {about.why}, and all instance types whose root may be an instance"
            f" store have processors for {' and '.join(_PROCESSORS)}",
            "make an image for one of these",
        )


def _fstabs(disk: Disk) -> Iterator[Remark]:
    known = _known(disk)
    for place, text in disk.fstabs:
        for count, (device, why) in enumerate(missing(text, known)):
            if count == _MOST_NAMED:
                break
            yield Remark(
                "fstab",
                "warning",
                f"the fstab in {name(place)} names {device[:200]}, which will not be there: {why}",
                "name file systems by UUID or LABEL, and give what may be missing the option"
                " nofail",
            )


def _known(disk: Disk) -> Known:
    tags: set[tuple[str, str]] = set()
    for place in disk.places:
        if place.system:
            tags.add(("UUID", (place.system.uuid or "").lower()))
            tags.add(("LABEL", place.system.label or ""))
        if place.partition:
            tags.add(("PARTUUID", str(place.partition.uuid or "").lower()))
            tags.add(("PARTLABEL", place.partition.name))
    kinds = {place.system.kind if place.system else None for place in disk.places}
    volumes = not kinds.isdisjoint(VOLUMES)
    return Known(
        tags,
        {place.partition.number for place in disk.places if place.partition},
        whole=not volumes and disk.whole and not disk.other_table and _all_seen(disk),
        volumes=volumes,
    )


def _all_seen(disk: Disk) -> bool:
    """Return whether each part that may have a file system was looked at, and is known."""
    return all(
        place.looked_at and (place.system or not place.partition or _needs_none(place.partition))
        for place in disk.places
    )


def _old(disk: Disk) -> Iterator[Remark]:
    for place, found in disk.old:
        if found.old:
            about = "" if found.whole else "about "
            yield Remark(
                "old-data",
                "warning",
                f"{about}{found.old} of the {found.free} bytes that are free in {name(place)} hold"
                " old data: what was deleted, keys included, travels with the image, and makes"
                " the bundle larger",
                _zeroing(place),
            )


def _zeroing(place: Place) -> str:
    where = f" of {name(place)}" if place.partition else ""
    return f"zero it{where}: zerofree, or fstrim on the mounted file system"
