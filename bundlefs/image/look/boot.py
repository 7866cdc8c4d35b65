"""Whether a disk looks as if a machine could start from it: boot code, and who else might.

A BIOS runs the code in the first sector. With a GPT, GRUB has the rest of itself in a partition
of its own; other loaders look for a partition that is marked. UEFI looks for its own partition.
"""

from dataclasses import dataclass
from uuid import UUID

from bundlefs.image.look.partitions import EFI, Table
from bundlefs.image.look.window import UnreadableError, Window

BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
_CODE = 440
"""Bytes of the first sector that a BIOS runs; the disk's signature is behind them."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What there is to start from.

    Attributes:
        code: whether there is code in the first sector.
        efi: whether there is a partition for UEFI.
        marked: whether a partition is marked as bootable, or is GRUB's own.
    """

    code: bool
    efi: bool
    marked: bool

    @property
    def at_all(self) -> bool:
        """Whether anything does."""
        return self.code or self.efi


def boot(disk: Window, table: Table) -> Boot:
    """Look what a disk with a partition table can be started by.

    Raises:
        OSError: the read failed.
    """
    try:
        code = any(disk.read(0, _CODE))
    except UnreadableError:
        code = False
    return Boot(
        code,
        any(one.kind == EFI for one in table.partitions),
        any(one.bootable or one.kind == BIOS_BOOT for one in table.partitions),
    )
