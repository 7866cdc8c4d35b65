"""The architecture of the code in an image, by what says so for sure.

- A GPT's types of root and /usr partitions
  [UAPI group, Discoverable Partitions Specification].
- The boot loader that firmware finds by its name in the EFI system partition [UEFI 3.5.1.1].
- The ELF header of the first program, in ext2, ext3 and ext4.

Where they contradict each other, or all are silent, nothing is said.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from bundlefs.image.look.ext import Ext
from bundlefs.image.look.fat import Fat
from bundlefs.image.look.partitions import EFI, Table, table
from bundlefs.image.look.window import Budget, Peekable, UnreadableError, Window

_ROOTS = {
    UUID(text): name
    for name, texts in {
        "x86_64": (
            "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
            "8484680c-9521-48c6-9c11-b0720656f69e",
        ),
        "i386": ("44479540-f297-41b2-9af7-d131d5f0458a", "75250d76-8cc6-458e-bd66-bd47cc81a812"),
        "arm64": ("b921b045-1df0-41c3-af44-4c6f280d3fae", "b0e01050-ee5f-4390-949a-9101b17104e9"),
        "armhf": ("69dad710-2ce4-4e3c-b16c-21a1d49abed3",),
        "riscv64": ("72ec70a6-cf74-40e6-bd49-4bda08e8f224",),
        "ppc64le": ("c31c45e6-3f39-412e-80fb-4809c4980599",),
    }.items()
    for text in texts
}
_LOADERS = {
    "BOOTX64.EFI": "x86_64",
    "BOOTIA32.EFI": "i386",
    "BOOTAA64.EFI": "arm64",
    "BOOTARM.EFI": "armhf",
}
_MACHINES = {
    3: "i386",
    21: "ppc64",
    40: "armhf",
    62: "x86_64",
    183: "arm64",
    243: "riscv64",
}
_PROGRAMS = ("/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/sh")
_ELF = struct.Struct("<4sBB12xH")
_BIG_ENDIAN = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What an image says of its architecture.

    Attributes:
        found: (architecture, what says so), as far as anything does.
        structured: whether there is a partition table or a file system that is known.
    """

    found: tuple[tuple[str, str], ...]
    structured: bool

    @property
    def name(self) -> str | None:
        """The one architecture that all agree on."""
        names = {name for name, _ in self.found}
        return names.pop() if len(names) == 1 else None

    @property
    def why(self) -> str:
        """What was found, in words."""
        return ", ".join(f"{name} by {what}" for name, what in self.found) or "nothing tells it"


def seen(image: Peekable) -> Seen:
    """Look which architecture the code in an image is for.

    Raises:
        OSError: a read failed.
        BundlefsError: same, for an image that is not raw.
    """
    disk = Window(image.peek, image.size, 0, Budget())
    partitions = table(disk)
    found = [*_by_types(partitions)]
    structured = partitions is not None
    parts = [(disk, False)]
    if partitions:
        parts = [(disk.at(one.start, one.size), one.kind == EFI) for one in partitions.partitions]
    for part, is_efi in parts:
        if is_efi:
            found += _by_loader(part)
        elif (system := _ext(part)) is not None:
            structured = True
            found += _by_program(system)
    return Seen(tuple(dict.fromkeys(found)), structured)


def _by_types(partitions: Table | None) -> Iterator[tuple[str, str]]:
    for one in partitions.partitions if partitions else ():
        if one.kind in _ROOTS:
            yield _ROOTS[one.kind], "the type of a partition"


def _by_loader(part: Window) -> list[tuple[str, str]]:
    try:
        names = Fat(part).names("EFI", "BOOT")
    except UnreadableError:
        return []
    loaders = [name for name in _LOADERS if name in names]
    # Media that boot on several kinds of machines tell nothing of the system in them.
    return [(_LOADERS[loaders[0]], f"EFI/BOOT/{loaders[0]}")] if len(loaders) == 1 else []


def _ext(part: Window) -> Ext | None:
    try:
        return Ext(part)
    except UnreadableError:
        return None


def _by_program(system: Ext) -> Iterator[tuple[str, str]]:
    for path in _PROGRAMS:
        with suppress(UnreadableError):
            name = machine(system.text(path, _ELF.size))
            if name:
                yield name, path
                return


def machine(head: bytes) -> str | None:
    """Return the architecture of a program by its ELF header; None if it is none, or unknown."""
    if len(head) < _ELF.size:
        return None
    magic, _, order, number = _ELF.unpack_from(head)
    if magic != b"\x7fELF":
        return None
    if order == _BIG_ENDIAN:
        number = number >> 8 | (number & 0xFF) << 8
    name = _MACHINES.get(number)
    return "ppc64le" if name == "ppc64" and order != _BIG_ENDIAN else name
