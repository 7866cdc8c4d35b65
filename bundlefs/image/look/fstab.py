"""What an /etc/fstab expects of a machine: devices and file systems that must be there at boot.

Pure text. Only what would hold up the boot counts: an entry with `noauto` or `nofail` does not.
[fstab(5), systemd.mount(5)]
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

LONGEST = 64 << 10
"""Bytes of an fstab that are read."""

_MOST_ENTRIES = 200
_OPTIONAL = {"noauto", "nofail"}
_TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=(.*)")
_BY = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.*)")
_XEN = re.compile(r"/dev/xvd[a-z]+([0-9]*)")
_SCSI = re.compile(r"/dev/sd[a-z]+[0-9]*")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Known:
    """What there is in an image.

    Attributes:
        tags: (UUID, LABEL, PARTUUID or PARTLABEL, its value); UUIDs in small letters.
        partitions: numbers of partitions; empty without a table.
        whole: whether all file systems of it are known, so that another is not there.
        volumes: whether device-mapper may make devices of what is in it (LVM, LUKS).
    """

    tags: Collection[tuple[str, str]]
    partitions: Collection[int]
    whole: bool
    volumes: bool


def missing(text: bytes, known: Known) -> Iterator[tuple[str, str]]:
    """Yield what an fstab names and what will not be there, and why."""
    for device in _devices(text):
        if why := _why_missing(device, known):
            yield device, why


def _devices(text: bytes) -> Iterator[str]:
    """Yield the first fields of the entries that must be there."""
    count = 0
    for line in text.decode("utf-8", "replace").split("\n"):
        fields = line.split()
        if not fields or fields[0].startswith("#") or count == _MOST_ENTRIES:
            continue
        count += 1
        options = set(fields[3].split(",")) if len(fields) > 3 else set[str]()  # noqa: PLR2004  # fstab(5)
        if not options & _OPTIONAL:
            yield _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[0])


def _why_missing(device: str, known: Known) -> str | None:
    named = _TAG.fullmatch(device) or _BY.fullmatch(device)
    if named:
        return _untold(named[1].upper(), named[2].strip("\"'"), known)
    if not device.startswith("/dev/") or device == "/dev/root":
        return None
    if device.startswith(("/dev/mapper/", "/dev/dm-")) or device.count("/") > 2:  # noqa: PLR2004  # of a volume
        return None if known.volumes else "there is no LVM and no LUKS in the image"
    if on_xen := _XEN.fullmatch(device):
        number = int(on_xen[1] or 0)
        gone = known.partitions and number and number not in known.partitions
        return f"the image has no partition {number}" if gone else None
    if _SCSI.fullmatch(device) and not known.partitions:
        return None  # as a paravirtual machine may call it
    return "disks are called /dev/xvda and so on there"


def _untold(tag: str, value: str, known: Known) -> str | None:
    wanted = value.lower() if tag.endswith("UUID") else value
    if (tag, wanted) in known.tags or not known.whole:
        return None
    return f"nothing in the image has this {tag}"
