"""Compressed files from their start: the decoders, and one loop around them all.

A file may have several members (gzip, bzip2), streams (xz) or frames (zstd), one
after the other; what is behind the last must be nothing but the padding that the
format allows. Memory does not grow with the file: decoders give at most a piece
at a time, and those that need more for a window than is usual are refused.
"""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from isal import igzip_lib

from bundlefs.errors import ImageError
from bundlefs.image import Image
from bundlefs.sources.forms import Form

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READ = 128 << 10
_PIECE = 1 << 20
_XZ_MEMORY = 256 << 20


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
    """A decoder, and what of zeros may be behind a member: a multiple of this, or none for 0."""

    decoder: Callable[[], Decoder]
    padding: int = 0


CODECS = {
    # Padding up to a tape's block, as gzip itself ignores it.
    Form.GZIP: Codec(lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), 1),
    Form.BZIP2: Codec(bz2.BZ2Decompressor),
    # [xz-file-format 2.2]
    Form.XZ: Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), 4),
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


def unpacked(file: Image, form: Form) -> Iterator[bytes]:
    """Yield the content of a compressed file in pieces of at most 1 MiB.

    Raises:
        ImageError: it is damaged, cut short or has something else behind it.
        ImageChangedError: it was changed meanwhile.
        OSError: it cannot be read.
    """
    packed = _Packed(file, form)
    while packed.next_member():
        decoder = CODECS[form].decoder()
        while not decoder.eof:
            data = packed.take() if decoder.needs_input else b""
            yield packed.decode(decoder, data)
        packed.give_back(decoder.unused_data)


class _Packed:
    """The compressed file, read in order."""

    def __init__(self, file: Image, form: Form) -> None:
        self._file = file
        self._form = form
        self._offset = 0
        self._rest = b""

    def next_member(self) -> bool:
        """Skip padding; tell whether more follows."""
        padding = CODECS[self._form].padding
        zeros = 0
        while padding and (self._rest or self._more()):
            stripped = self._rest.lstrip(b"\0")
            zeros += len(self._rest) - len(stripped)
            self._rest = stripped
            if stripped:
                break
        if padding and zeros % padding:
            raise self._error(f"{zeros} zero bytes are between or behind its streams")
        return bool(self._rest or self._more())

    def take(self) -> bytes:
        """Give the next input."""
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
            raise self._error(
                f"it is damaged, or has something else behind it ({error})"
            ) from error

    def _more(self) -> bool:
        length = min(_READ, self._file.size - self._offset)
        self._rest = self._file.read(self._offset, length) if length else b""
        self._offset += length
        return bool(length)

    def _error(self, what: str) -> ImageError:
        return ImageError(
            f"image {self._file.path} ({self._form.value}): {what}, found within its first"
            f" {self._offset} of {self._file.size} bytes; get it anew (--source raw takes it as it"
            " is)"
        )
