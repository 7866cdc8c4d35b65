"""Where the disk is in an OVA: a tar archive with a description and the disks of a machine.

[DMTF DSP0243, 5.3] Nothing is unpacked: an archive that is not sparse has each file in one piece.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.errors import BundleError, ImageError
from bundlefs.base.escapes import quoted
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.tar_format import BLOCK
from bundlefs.codec.tar_headers import HeadReader, decimal, name_of, read_headers

Read = Callable[[int, int], bytes]

_PLAIN = (b"0", b"\0", b"7")
_VMDK = b"KDMV"
_DISK_NAME = re.compile(r"\.(?:vmdk|vhdx?|vdi|qcow2?|img|raw)(?:\.|$)", re.IGNORECASE)
_MOST_FILES = 1000
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class _File:
    """A file in the archive: `plain` if its bytes stand there as they are."""

    name: str
    span: Span
    plain: bool


def disk(path: Path, read: Read, size: int) -> Span:
    """Return which bytes of an OVA are its disk.

    Args:
        path: for errors.
        read: returns so many bytes from an offset, fewer at the end.
        size: of the OVA.

    Raises:
        ImageError: it has no vmdk, or several disks, or is damaged or cut short.
    """
    try:
        files = list(_files(read, size))
    except BundleError as error:
        raise ImageError(
            f"image {path} (ova) is damaged or cut short: its archive cannot be read; get it anew"
        ) from error
    vmdks = [each for each in files if each.plain and read(each.span.start, 4) == _VMDK]
    disks = [each for each in files if each in vmdks or _DISK_NAME.search(each.name)]
    if not vmdks or len(disks) > 1:
        raise ImageError(_why_not_one(path, [each.name for each in disks or files], bool(vmdks)))
    if vmdks[0].span.stop > size:
        raise ImageError(
            f"image {path} (ova) is cut short: it has {size} bytes, and {quoted(vmdks[0].name)} in"
            f" it ends at {vmdks[0].span.stop}; get it anew"
        )
    return vmdks[0].span


def _why_not_one(path: Path, names: list[str], has_vmdk: bool) -> str:  # noqa: FBT001  # a fact
    shown = ", ".join(quoted(name) for name in names[:_MOST_NAMED])
    shown += ", ..." if len(names) > _MOST_NAMED else ""
    what = "several disks" if has_vmdk else "no vmdk that is read"
    return (
        f"image {path} (ova) has {what} in it ({shown or 'nothing'}): unpack it (tar -xf), and give"
        " the disk that is meant"
    )


def _files(read: Read, size: int) -> Iterator[_File]:
    """Yield the files in order.

    Raises:
        BundleError: a header is no header, or there is no end to them.
    """
    stream = HeadReader(read)
    for _ in range(_MOST_FILES):
        if stream.at >= size or not any(read(stream.at, BLOCK)):
            return
        header, extra = read_headers(stream)
        records = extra.records
        length = decimal(records[b"size"], "size") if b"size" in records else header.size
        sparse = extra.sparse or any(key.startswith(b"GNU.sparse") for key in records)
        span = Span(stream.at, stream.at + length)
        yield _File(name_of(header, extra), span, header.kind in _PLAIN and not sparse)
        stream.at += ceil_div(length, BLOCK) * BLOCK
    raise BundleError(f"the archive has more than {_MOST_FILES} files")
