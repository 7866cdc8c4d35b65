"""Where in a file the disk of a virtual machine is, once it is known that all of it is there.

An image may come from anybody, and these formats can name other files to read from. An image that
names one is refused: the file's bytes would go into the bundle, and a change of them would not be
seen. A format that is new here gets a function of its own in `_PLACES`, which must refuse that.

Numbers in headers are untrusted: nothing is read or allocated by them but within bounds.
"""

import logging
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from bundlefs.base.errors import ImageError
from bundlefs.base.spans import Span
from bundlefs.image import ova, vhdx
from bundlefs.image.forms import VHD_FOOTER, Form
from bundlefs.image.raw import Image

log = logging.getLogger(__name__)

_QCOW2 = struct.Struct(">4sIQ8xQI")
_QCOW2_HEADER = 72
_QCOW2_VERSIONS = (2, 3)
_QCOW2_FEATURES = struct.Struct(">Q")
_EXTERNAL_DATA = 1 << 2
_VDI = struct.Struct("<I28xI8xI")
_VDI_FIELDS = 0x158
_VMDK = struct.Struct("<4sIIQQQQ")
_EXTENT = re.compile(rb"^\s*(?:RW|RDONLY|NOACCESS)\s+[0-9]", re.MULTILINE | re.IGNORECASE)
_SECTOR = 512
_MOST_TEXT = 1 << 20

# Creator, size, geometry, type and checksum [Virtual Hard Disk Image Format Specification].
_VHD = struct.Struct(">28x4s16xQHBBII")
_VHD_CHECKSUM = slice(64, 68)
_VHD_FIXED, _VHD_DYNAMIC, _VHD_DIFFERENCING = 2, 3, 4
_VHD_MOST_GEOMETRY = (65535, 16, 255)
_BY_GEOMETRY = (b"vpc ", b"qemu")
"""Creators whose disks have as many sectors as their geometry; all others count by the size."""
_VHD_TABLE = struct.Struct(">8s8xQ4xII")
_MOST_VHD_BLOCKS = 1 << 22
"""At 512 KiB each, the smallest that is in use, these are the 2 TiB that a VHD can have."""


@dataclass(frozen=True, slots=True)
class Place:
    """What qemu is to open.

    Attributes:
        driver: qemu's block driver.
        options: of that driver.
        within: the bytes of the file that are the disk's; all if it is None.
        size: of the disk inside, where it is known before.
        checked: whether `qemu-img check` knows the format.
    """

    driver: str
    options: dict[str, object] = field(default_factory=lambda: {"backing": None})
    within: Span | None = None
    size: int | None = None
    checked: bool = True


class Part:
    """The bytes of a file, or some of them, with offsets of their own."""

    def __init__(self, file: Image, span: Span) -> None:
        self.path = file.path
        self._file = file
        self._span = span
        self.size = span.length

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes, as `Image.read`, but fewer at the end."""
        wanted = Span(offset, offset + length).clip(Span(0, self.size)).shift(self._span.start)
        return self._file.read(wanted.start, wanted.length) if wanted.length > 0 else b""

    def part(self, span: Span) -> "Part":
        """Return some of these bytes."""
        return Part(self._file, span.shift(self._span.start))


def place(file: Image, form: Form) -> Place:
    """Return where the disk in a file is.

    Raises:
        ImageError: it is not whole by itself, damaged, or encrypted.
        OSError: the file cannot be read.
    """
    return _PLACES[form](Part(file, Span(0, file.size)))


def _text(file: Part) -> Place:
    raise _not_alone(file, Form.VMDK_TEXT, "only describes a disk that is in other files")


def _qcow2(file: Part) -> Place:
    """Refuse backing files, external data files and encryption [docs/interop/qcow2.txt]."""
    if file.size < _QCOW2_HEADER:
        raise ImageError(
            f"image {file.path} (qcow2) is cut short: it has {file.size} bytes, and a header alone"
            f" has {_QCOW2_HEADER}; get it anew"
        )
    head = _head(file, 104)
    _, version, backing, _, encryption = _QCOW2.unpack_from(head)
    if version not in _QCOW2_VERSIONS:
        raise ImageError(
            f"image {file.path} says that it is qcow2 of version {version}, and there are 2 and 3:"
            " make one of these with the tool that wrote it, or get it anew if it is damaged"
        )
    features = _QCOW2_FEATURES.unpack_from(head, 72)[0] if version > 2 else 0  # noqa: PLR2004  # from 3 on
    if backing:
        raise _not_alone(file, Form.QCOW2, "has a backing file")
    if features & _EXTERNAL_DATA:
        raise _not_alone(file, Form.QCOW2, "has its data in another file")
    if encryption:
        raise ImageError(
            f"image {file.path} is encrypted: decrypt it first, with qemu-img convert -O raw"
        )
    return Place("qcow2")


def _vmdk(file: Part, form: Form = Form.VMDK) -> Place:
    """Refuse a parent, other extents, and no disk at all [VMware's Virtual Disk Format 1.1]."""
    _, _, _, capacity, _, text_sector, text_sectors = _VMDK.unpack(_head(file, _VMDK.size))
    if not capacity:
        raise _not_alone(file, form, "only describes a disk that is in other files")
    text = file.read(text_sector * _SECTOR, min(text_sectors * _SECTOR, _MOST_TEXT))
    if b"parentfilenamehint" in text.lower():
        raise _not_alone(file, form, "has a parent file")
    # A disk in one file describes itself; what does not is one of several extents.
    if len(_EXTENT.findall(text)) != 1:
        raise _not_alone(file, form, "is only a part of a disk that has several files")
    return Place("vmdk")


def _vdi(file: Part) -> Place:
    """Refuse an image that is cut short, which qemu's check overlooks [qemu's block/vdi.c].

    The header says where the data begins, how large a block is, and how many are allocated.
    """
    data, block, allocated = _VDI.unpack_from(_head(file, _SECTOR), _VDI_FIELDS)
    if data + block * allocated > file.size:
        raise ImageError(
            f"image {file.path} (vdi) is cut short: it has {file.size} bytes, and its header says"
            f" {data + block * allocated}; get it anew"
        )
    # VDI cannot have a backing file.
    return Place("vdi", options={})


def _vhd(file: Part) -> Place:
    """Refuse what has a parent, and find the size, of which qemu makes less for many creators.

    Virtual PC made disks of as many sectors as their geometry has, which is at most their size.
    All others count by the size: Hyper-V, Azure, VirtualBox, XenServer, disk2vhd, qemu of today.
    """
    head = _head(file, _SECTOR)
    fixed = not VHD_FOOTER.match(head)
    footer = file.read(file.size - _SECTOR, _SECTOR) if fixed else head
    creator, size, cylinders, heads, sectors, kind, checksum = _VHD.unpack_from(footer)
    if kind == _VHD_DIFFERENCING:
        raise _not_alone(file, Form.VHD, "has a parent file")
    geometry = (cylinders, heads, sectors)
    by_geometry = creator in _BY_GEOMETRY and geometry != _VHD_MOST_GEOMETRY
    shown = cylinders * heads * sectors * _SECTOR if by_geometry else size
    _require(file, kind == (_VHD_FIXED if fixed else _VHD_DYNAMIC), f"it is of type {kind}")
    _require(file, _vhd_checksum(footer) == checksum, "the checksum of its footer does not fit")
    _require(file, size > 0 and not size % _SECTOR, f"its size is said to be {size} bytes")
    _require(file, 0 < shown <= size, f"its geometry has {shown} bytes, and its size is {size}")
    if fixed:
        found = file.size - _SECTOR
        _require(file, found == size, f"it holds {found} bytes, and its footer says {size}")
    else:
        _require_vhd_table(file, head)
    if shown != size:
        log.info("%s: as Virtual PC did, %d of %d bytes are shown", file.path, shown, size)
    # By itself qemu takes the geometry of creators that it does not know.
    force = "chs" if by_geometry else "current_size"
    return Place("vpc", {"force_size_calc": force}, size=shown, checked=False)


def _vhd_checksum(footer: bytes) -> int:
    return ~(sum(footer) - sum(footer[_VHD_CHECKSUM])) & 0xFFFFFFFF


def _require_vhd_table(file: Part, footer: bytes) -> None:
    """Refuse a table that is not in the file, for which qemu takes memory all the same."""
    at = int.from_bytes(footer[16:24], "big")
    head = file.read(at, _VHD_TABLE.size).ljust(_VHD_TABLE.size, b"\0")
    magic, table, blocks, _ = _VHD_TABLE.unpack(head)
    _require(file, magic == b"cxsparse", f"at {at} there is no header")
    whole = blocks <= _MOST_VHD_BLOCKS and table + 4 * blocks <= file.size
    _require(file, whole, f"its table of {blocks} blocks at {table} is not in it")


def _require(file: Part, holds: bool, what: str) -> None:  # noqa: FBT001  # the condition itself
    if not holds:
        raise ImageError(
            f"image {file.path} (vhd) is damaged, cut short, or has something behind it: {what};"
            " get it anew"
        )


def _vhdx(file: Part) -> Place:
    """Refuse what has a parent."""
    if vhdx.has_parent(file.read):
        raise _not_alone(file, Form.VHDX, "has a parent file")
    return Place("vhdx")


def _ova(file: Part) -> Place:
    """Find the one vmdk."""
    within = ova.disk(file.path, file.read, file.size)
    whole = _vmdk(file.part(within), Form.OVA)
    return Place(whole.driver, whole.options, within)


_PLACES: dict[Form, Callable[[Part], Place]] = {
    Form.QCOW2: _qcow2,
    Form.VMDK: _vmdk,
    Form.VMDK_TEXT: _text,
    Form.VDI: _vdi,
    Form.VHD: _vhd,
    Form.VHDX: _vhdx,
    Form.OVA: _ova,
}


def _head(file: Part, length: int) -> bytes:
    """Return the first bytes, zeros where the file is shorter: qemu then says what is wrong."""
    return file.read(0, length).ljust(length, b"\0")


def _not_alone(file: Part, form: Form, why: str) -> ImageError:
    return ImageError(
        f"image {file.path} ({form.value}) {why}, and bundlefs reads no file that an image names:"
        " if you trust it, make one image of it all with qemu-img convert -O raw"
    )
