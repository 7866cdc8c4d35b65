"""Compressed files, read from their start: the decoders, and what may stand behind a member.

A file may have several members, as `codec.members` calls them. What stands behind the last one is
taken as the format's own tools take it: padding is passed over; anything else is left out with a
warning for gzip and bzip2, and is an error for xz and zstd. Memory does not grow with the file:
decoders return at most a piece at a time, and a file that needs a larger window than is usual is
refused.
"""

import bz2
import logging
import lzma
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isal import igzip_lib

from bundlefs.base.errors import FormError
from bundlefs.base.progress import Wait
from bundlefs.codec.members import PIECE, Decoder, gzip_decoder, inflated
from bundlefs.image import forms, limits, trailing
from bundlefs.image.forms import Form
from bundlefs.image.raw import Image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = logging.getLogger(__name__)

_READ = 128 << 10
_MAGIC_SIZE = 4


@dataclass(frozen=True, slots=True)
class Packing:
    """How a file is compressed: its decoder, and what may stand behind a member.

    Attributes:
        decoder: makes a decoder for a member.
        padding: zeros may stand there, a multiple of this many; none if it is 0.
        ignoring: the tool that leaves out whatever else stands there, with a warning; None if the
            format's tools refuse it.
        magic: a pattern of what a member begins with, where there is such a tool.
    """

    decoder: Callable[[], Decoder]
    padding: int = 0
    ignoring: str | None = None
    magic: bytes = b""


PACKINGS = {
    # Padding up to a tape's block, as gzip itself ignores it.
    Form.GZIP: Packing(
        gzip_decoder,
        padding=1,
        ignoring="gunzip",
        magic=rb"\x1f\x8b\x08",
    ),
    Form.BZIP2: Packing(bz2.BZ2Decompressor, ignoring="bunzip2", magic=rb"BZh[1-9]"),
    # [xz-file-format 2.2]
    Form.XZ: Packing(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.XZ_MEMORY), 4),
    Form.ZSTD: Packing(zstd.ZstdDecompressor),
}

# bz2 raises OSError for bad data. EOFError and ValueError are for misuse, which only bad data can
# lead to here. igzip's stub says that its error is an instance.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    lzma.LZMAError,
    zstd.ZstdError,
    igzip_lib.IsalError,
)


class Unpacked:
    """The content of a compressed file: yields it in pieces of at most 1 MiB, once.

    Raises:
        FormError: it is damaged, cut short, has something else behind it, or takes too much memory.
        ImageChangedError: it was changed meanwhile.
        OSError: it cannot be read.
    """

    def __init__(self, file: Image, form: Form) -> None:
        self._packed = _Packed(file, form)
        self._make = PACKINGS[form].decoder

    @property
    def end(self) -> int:
        """How many bytes of the file are compressed data, once everything was yielded."""
        return self._packed.end

    def __iter__(self) -> Iterator[bytes]:
        return inflated(self._packed, self._make)

    def told_to(self, wait: Wait) -> Iterator[bytes]:
        """Yield the same, and tell how many bytes of the file were read for it."""
        for piece in self:
            wait.reached(self._packed.taken)
            yield piece


class _Packed:
    """The compressed file, read in order."""

    def __init__(self, file: Image, form: Form) -> None:
        self._file = file
        self._form = form
        self._packing = PACKINGS[form]
        self._offset = 0
        self._rest = b""
        self._member = 0
        self.end = 0

    @property
    def taken(self) -> int:
        """How many bytes of the file were read."""
        return self._offset

    @property
    def _position(self) -> int:
        """How many bytes of the file were taken by decoders."""
        return self._offset - len(self._rest)

    def next_member(self) -> bool:
        """Skip padding; return whether another member follows."""
        padding = self._packing.padding
        zeros = 0
        while padding and (self._rest or self._more()):
            stripped = self._rest.lstrip(b"\0")
            zeros += len(self._rest) - len(stripped)
            self._rest = stripped
            if stripped:
                break
        if padding and zeros % padding:
            raise self._error(f"{zeros} zero bytes are between or behind its streams")
        more = bool(self._rest or self._more()) and not self._ends()
        self._member = self._position
        return more

    def _ends(self) -> bool:
        """Return whether what stands here is no member, and means nothing to this format."""
        if not self._position:
            return False
        if self._packing.ignoring is None:
            self._require_member()
            return False
        if re.match(self._packing.magic, self._peek(self._position, _MAGIC_SIZE)):
            return False
        length = self._file.size - self._position
        found = self._peek(self._position, trailing.MOST)
        if why := trailing.why_not_ignored(found, length, self._form):
            raise self._error(f"{why}, {length} bytes behind a member of it")
        log.warning(
            "image %s: %d bytes behind the %s data are none of it, and are left out, as %s does",
            self._file.path,
            length,
            self._form.value,
            self._packing.ignoring,
        )
        return True

    def _require_member(self) -> None:
        """Refuse what stands behind a member and is none, where the format's tools refuse it."""
        if forms.may_begin(self._form, self._peek(self._position, forms.HEAD_SIZE)):
            return
        path, form, end = self._file.path, self._form.value, self._position
        raise FormError(
            f"image {path} ({form}): it is followed by {self._file.size - end} bytes that are none"
            f" of it, from byte {end} on: if they belong there, as a signature does, leave them"
            f" out: head -c {end} {shlex.quote(str(path))} >disk.{form}; else get it anew"
        )

    def take(self) -> bytes:
        """Return the next input."""
        if not self._rest and not self._more():
            raise self._error("it is cut short")
        data, self._rest = self._rest, b""
        return data

    def give_back(self, data: bytes) -> None:
        """Take back what stood behind a member."""
        self._rest = data
        self.end = self._position

    def decode(self, decoder: Decoder, data: bytes) -> bytes:
        """Decode; an error says what is wrong with the file."""
        try:
            return decoder.decompress(data, PIECE)
        except _DAMAGE as error:  # type: ignore[misc]  # see there
            if limits.is_limit(error):
                head = self._file.read(
                    self._member, min(limits.HEAD, self._file.size - self._member)
                )
                raise FormError(
                    limits.explained(self._file.path, self._form, head, error)
                ) from error
            raise self._error(
                f"it is damaged, or has something else behind it ({error})"
            ) from error

    def _peek(self, offset: int, length: int) -> bytes:
        """Return bytes at an offset, fewer at the end of the file."""
        return self._file.read(offset, min(length, self._file.size - offset))

    def _more(self) -> bool:
        length = min(_READ, self._file.size - self._offset)
        self._rest = self._file.read(self._offset, length) if length else b""
        self._offset += length
        return bool(length)

    def _error(self, what: str) -> FormError:
        return FormError(
            f"image {self._file.path} ({self._form.value}): {what}, found within its first"
            f" {self._offset} of {self._file.size} bytes; get it anew"
        )
