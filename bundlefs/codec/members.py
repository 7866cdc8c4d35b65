"""Compressed streams of one member or several, one after the other: the one loop around them.

A gzip or bzip2 file has members, an xz file streams and a zstd file frames; all are members here.
What may stand between and behind them, and how an error reads, is the input's business.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from isal import igzip_lib

PIECE = 1 << 20
"""The most bytes that a decoder is asked for at once, so that memory does not grow with a file."""


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
        """What stood behind the end of the member in the input."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take input and return at most so many bytes of output."""


class Input(Protocol):
    """The compressed bytes, in order."""

    def next_member(self) -> bool:
        """Pass over what may stand between members; return whether another one follows."""

    def take(self) -> bytes:
        """Return the next bytes, one or more; raise the error of a stream that is cut short."""

    def give_back(self, data: bytes) -> None:
        """Take back bytes that stood behind a member."""

    def decode(self, decoder: Decoder, data: bytes) -> bytes:
        """Return up to `PIECE` bytes of output; turn the decoder's errors into one for people."""


def inflated(packed: Input, make: Callable[[], Decoder]) -> Iterator[bytes]:
    """Yield the content of all members, joined, in pieces of at most `PIECE` bytes.

    Args:
        packed: the compressed bytes.
        make: makes the decoder of a member.
    """
    while packed.next_member():
        decoder = make()
        while not decoder.eof:
            yield packed.decode(decoder, packed.take() if decoder.needs_input else b"")
        packed.give_back(decoder.unused_data)


def gzip_decoder() -> Decoder:
    """Return a decoder of one gzip member, which checks its CRC and size."""
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
