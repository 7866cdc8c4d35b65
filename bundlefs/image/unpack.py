"""Compressed files from their start: the decoders, and one loop around them all.

A file may have several members (gzip, bzip2), streams (xz) or frames (zstd), one
after the other. What is behind the last is taken as the format's own tools take it:
padding; anything else for gzip and bzip2, with a warning; for xz and zstd it is an
error. Memory does not grow with the file: decoders give at most a piece at a time, and
those that need more for a window than is usual are refused.
"""

import bz2
import logging
import lzma
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from isal import igzip_lib

from bundlefs.base.errors import FormError
from bundlefs.image import limits, trailing
from bundlefs.image.forms import Form
from bundlefs.image.raw import Image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = logging.getLogger(__name__)

_READ = 128 << 10
_PIECE = 1 << 20
_MAGIC_SIZE = 4


class Decoder(Protocol):
    """What all decoders have in common, as the standard library's [`bz2.BZ2Decompressor`]."""

    @property
    def eof(self) -> bool:
        """Whether the member is at its end."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more input."""

    @property
    def unused_data(self) -> bytes:
        """What was behind the end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take input and give at most so much output."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A decoder, and what may be behind a member.

    Attributes:
        decoder: makes one for a member.
        padding: zeros may be there, in a multiple of this; none for 0.
        ignoring: the tool that leaves out whatever else is there, with a warning; None if the
            format's tools refuse it.
        magic: what a member begins with, a pattern, if there is such a tool.
    """

    decoder: Callable[[], Decoder]
    padding: int = 0
    ignoring: str | None = None
    magic: bytes = b""


CODECS = {
    # Padding up to a tape's block, as gzip itself ignores it.
    Form.GZIP: Codec(
        lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
        padding=1,
        ignoring="gunzip",
        magic=rb"\x1f\x8b\x08",
    ),
    Form.BZIP2: Codec(bz2.BZ2Decompressor, ignoring="bunzip2", magic=rb"BZh[1-9]"),
    # [xz-file-format 2.2]
    Form.XZ: Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.XZ_MEMORY), 4),
    Form.ZSTD: Codec(zstd.ZstdDecompressor),
}

# bz2 raises OSError for bad data, and EOFError and ValueError are of misuse that only bad data
# can lead to. igzip's stub says that its error is an instance.
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

    Attributes:
        end: how many bytes of the file are compressed data; known when all was yielded.

    Raises:
        FormError: it is damaged, cut short, has something else behind it, or takes too much memory.
        ImageChangedError: it was changed meanwhile.
        OSError: it cannot be read.
    """

    def __init__(self, file: Image, form: Form) -> None:
        self.end = 0
        self._packed = _Packed(file, form)
        self._make = CODECS[form].decoder

    def __iter__(self) -> Iterator[bytes]:
        packed = self._packed
        while packed.next_member():
            decoder = self._make()
            while not decoder.eof:
                data = packed.take() if decoder.needs_input else b""
                yield packed.decode(decoder, data)
            packed.give_back(decoder.unused_data)
            self.end = packed.position


class _Packed:
    """The compressed file, read in order."""

    def __init__(self, file: Image, form: Form) -> None:
        self._file = file
        self._form = form
        self._codec = CODECS[form]
        self._offset = 0
        self._rest = b""
        self._member = 0

    @property
    def position(self) -> int:
        """How many bytes of the file were taken."""
        return self._offset - len(self._rest)

    def next_member(self) -> bool:
        """Skip padding; tell whether more follows."""
        padding = self._codec.padding
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
        self._member = self.position
        return more

    def _ends(self) -> bool:
        """Tell whether what is here is no member but of no meaning to this format."""
        if not self.position or self._codec.ignoring is None:
            return False
        if re.match(self._codec.magic, self._peek(self.position, _MAGIC_SIZE)):
            return False
        length = self._file.size - self.position
        found = self._peek(self.position, trailing.MOST)
        if why := trailing.why_not_ignored(found, length, self._form):
            raise self._error(f"{why}, {length} bytes behind a member of it")
        log.warning(
            "image %s: %d bytes behind the %s data are none of it, and are left out, as %s does",
            self._file.path,
            length,
            self._form.value,
            self._codec.ignoring,
        )
        return True

    def take(self) -> bytes:
        """Return the next input."""
        if not self._rest and not self._more():
            raise self._error("it is cut short")
        data, self._rest = self._rest, b""
        return data

    def give_back(self, data: bytes) -> None:
        """Take back what was behind a member."""
        self._rest = data

    def decode(self, decoder: Decoder, data: bytes) -> bytes:
        """Decode, with errors that say what is wrong with the file."""
        try:
            return decoder.decompress(data, _PIECE)
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
