"""How much memory a compressed file may ask for, and the error for one that asks for more.

Such a file is not damaged: its own tool unpacks it if it is told to. The memory that it asks for
stands in its header, which is read for the sake of the message alone.
"""

import lzma
import shlex
import sys
from pathlib import Path

from bundlefs.image.forms import Form

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

XZ_MEMORY = 256 << 20
HEAD = 1024
"""Bytes of a member within which its header lies."""

_ZSTD_WINDOW = 128 << 20
"""What libzstd takes unless told otherwise [zstd.h, ZSTD_WINDOWLOG_LIMIT_DEFAULT]."""

_LZMA2 = 0x21
_STREAM_HEADER = 12
_SINGLE_SEGMENT = 0x20
_FULL_DICTIONARY = 40


def is_limit(error: BaseException) -> bool:
    """Return whether a decoder refused because of the memory that it would take."""
    if isinstance(error, lzma.LZMAError):
        return "Memory usage limit" in str(error)
    return isinstance(error, zstd.ZstdError) and "too much memory" in str(error)


def explained(path: Path, form: Form, head: bytes, error: BaseException) -> str:
    """Return which limit a member that begins with `head` exceeds, and what to do."""
    file = shlex.quote(str(path))
    if form is Form.XZ:
        asked, size, most = "a dictionary", dictionary_size(head), XZ_MEMORY
        command = f"xz -dc {file} >disk.raw"
    else:
        asked, size, most = "a window", window_size(head), _ZSTD_WINDOW
        command = f"zstd -dc --long=31 {file} >disk.raw"
    value = f"of {size >> 20} MiB" if size else "of a size that its header does not tell"
    return (
        f"image {path} ({form.value}) was compressed with {asked} {value}, and no more than"
        f" {most >> 20} MiB of memory are spent on that ({error}): unpack it yourself: {command}"
    )


def window_size(head: bytes) -> int | None:
    """Return the size of a zstd frame's window in bytes, or None if its header does not tell it.

    The descriptor says which fields the header has. With a window byte the size is a power of two
    and eighths of it; in a single segment it is the content's size. [RFC 8878 3.1.1.1]
    """
    if len(head) < 18:  # noqa: PLR2004  # the longest header
        return None
    descriptor, window = head[4], head[5]
    if not descriptor & _SINGLE_SEGMENT:
        base = 1 << (10 + (window >> 3))
        return base + (base >> 3) * (window & 7)
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    width = (1, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(head[5 + dictionary :][:width], "little")
    return size + 256 if width == 2 else size  # noqa: PLR2004  # as the format has it


def dictionary_size(head: bytes) -> int | None:
    """Return the size of the dictionary of an xz stream's first block, None if it is not told.

    It is in the properties of the LZMA2 filter, one byte: 2^n or 3 * 2^(n-1) bytes, or 4 GiB - 1
    for the last value. [xz-file-format 3.1, 5.3.1]
    """
    try:
        return _dictionary_size(head)
    except IndexError:
        return None


def _dictionary_size(head: bytes) -> int | None:
    flags = head[_STREAM_HEADER + 1]
    position = _STREAM_HEADER + 2
    # The sizes of the block come first, if it states them.
    for flag in (0x40, 0x80):
        if flags & flag:
            _, position = _number(head, position)
    for _ in range((flags & 3) + 1):
        kind, position = _number(head, position)
        length, position = _number(head, position)
        if kind == _LZMA2:
            bits = head[position]
            full = bits == _FULL_DICTIONARY
            return (1 << 32) - 1 if full else (2 | bits & 1) << (bits // 2 + 11)
        position += length
    return None


def _number(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of variable length; return it and where it ends [xz-file-format 1.2]."""
    value = shift = 0
    while data[position] & 0x80:
        value |= (data[position] & 0x7F) << shift
        shift, position = shift + 7, position + 1
    return value | data[position] << shift, position + 1
