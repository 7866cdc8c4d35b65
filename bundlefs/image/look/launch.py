"""What keeps an instance from starting from an image, as far as a few small reads show it.

For whoever makes a bundle: only what is certain is told, so that a good image is passed over in
silence. `image.inspection` looks further.
"""

from bundlefs.image.look import superblocks
from bundlefs.image.look.boot import BIOS_BOOT, boot
from bundlefs.image.look.ext import Ext
from bundlefs.image.look.fstab import LONGEST, Known, missing
from bundlefs.image.look.partitions import Partition, Table, table
from bundlefs.image.look.superblocks import System
from bundlefs.image.look.window import Budget, Peekable, UnreadableError, Window

_MOST_PARTITIONS = 16
_MOST_TOLD = 3
_HIDING = ("LVM2_member", "crypto_LUKS", "linux_raid_member", "bcache")
"""What has file systems in it that are not seen."""

Part = tuple[Window, System | None]


def launch_doubts(image: Peekable, *, paravirtual: bool) -> list[str]:
    """Return in words what is wrong with an image as the root of an instance.

    Args:
        image: the image.
        paravirtual: whether the bundle is for a paravirtual machine, as one with a kernel is.

    Raises:
        OSError: a read failed.
        BundlefsError: same, for an image that is not raw.
    """
    disk = Window(image.peek, image.size, 0, Budget())
    found = table(disk)
    parts = _parts(disk, found)
    if not any(system for _, system in parts):
        return []
    return [*_of_start(disk, found, paravirtual=paravirtual), *_of_fstab(parts, found)]


def _parts(disk: Window, found: Table | None) -> list[Part]:
    """Return the parts of a disk and what is in them; None where that is not known."""
    windows = [disk]
    if found:
        inner = [one for one in found.partitions if not _is_empty(one)][:_MOST_PARTITIONS]
        windows = [
            disk.at(one.start, max(min(one.size, disk.size - one.start), 0)) for one in inner
        ]
    return [(window, superblocks.system(window)) for window in windows]


def _is_empty(partition: Partition) -> bool:
    """Return whether a partition is none that has a file system."""
    return partition.is_container or partition.kind == BIOS_BOOT


def _of_start(disk: Window, found: Table | None, *, paravirtual: bool) -> list[str]:
    if found is None:
        return []
    if paravirtual:
        kernel = (
            f"has a partition table ({found.name}), and the bundle names a kernel: that is for a"
            " paravirtual machine, which takes a bare file system unless that kernel is PV-GRUB of"
            " the kind hd00; leave the kernel out for hvm"
        )
        return [kernel]
    if boot(disk, found).at_all:
        return []
    nothing = (
        f"has a partition table ({found.name}) and no boot loader: there is no code in its first"
        " sector, and no EFI system partition, so nothing starts from it as hvm; install one"
        " (grub-install)"
    )
    return [nothing]


def _of_fstab(parts: list[Part], found: Table | None) -> list[str]:
    known = _known(parts, found)
    told: list[str] = []
    for window, system in parts:
        if system and system.kind.startswith("ext"):
            try:
                text = Ext(window).text("/etc/fstab", LONGEST)
            except UnreadableError:
                continue
            told += [
                f"names {device[:200]} in its /etc/fstab, which will not be there: {why}; name file"
                " systems by UUID or LABEL, or give it the option nofail"
                for device, why in missing(text, known)
            ]
    return told[:_MOST_TOLD]


def _known(parts: list[Part], found: Table | None) -> Known:
    systems = [system for _, system in parts]
    partitions = found.partitions if found else ()
    tags = [("UUID", (one.uuid or "").lower()) for one in systems if one]
    tags += [("LABEL", one.label or "") for one in systems if one]
    tags += [("PARTUUID", str(one.uuid).lower()) for one in partitions]
    tags += [("PARTLABEL", one.name) for one in partitions]
    hiding = any(one and one.kind in _HIDING for one in systems)
    # A label in FAT may be in its root folder, and a file system that is not known may be any.
    whole = not hiding and all(one and one.kind != "vfat" for one in systems)
    numbers = {one.number for one in partitions}
    return Known(set(tags), numbers, whole=whole, volumes=hiding or None in systems)
