"""Segments of a deflate stream that inflate apart from what is before them.

A stream that was deflated block by block, as bundlefs does, has places where nothing refers to
what is before. An empty stored block ends on a byte boundary and leaves four bytes that are easily
found [RFC 1951, 3.2.4]. They may as well stand anywhere else by chance, so a place behind them is
a guess. `decode` tells what came of it: a segment counts only if it is a run of whole deflate
blocks, none of them final, that ends with its last byte and refers to nothing before its first.
Whoever knows that it begins where a block begins then knows its content, and that the next block
begins behind it. Of the rest nothing is told: the decoder that goes through the stream in order
finds out.

zlib tells these things of a stream [zlib.h, inflate: data_type]: bits that are not used, whether
the block was final, and whether it stands between two blocks. It refuses a distance that reaches
back before the first byte.

Concurrency: any thread; each has a decoder of its own. zlib works without the GIL.
"""

import ctypes
import re
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

from bundlefs.base.buffers import Buffers
from bundlefs.base.errors import BundlefsError
from bundlefs.codec import final_block
from bundlefs.codec.deflate import BLOCK_SIZE, crc32

_MARKER = re.compile(rb"\x00\x00\xff\xff")
_LEAST = 128
"""Bytes of the shortest segment. Lower levels flush the first bytes of a block apart."""

_MOST = 8
"""Buffers that one segment may fill, so that memory does not grow with how well it compresses."""

_SLACK = 512  # zlib leaves its fast loop when less than 258 bytes of output are free
_Z_OK = 0
_Z_BUF_ERROR = -5
_BETWEEN_BLOCKS = 128  # and neither a final block, 64, nor bits that are not used, 1 to 7


@dataclass(frozen=True, slots=True)
class Decoded:
    """The content of a segment, in pieces; its CRC-32 and size."""

    pieces: list[memoryview] = field(repr=False)
    crc: int
    size: int


def make_buffers(most: int) -> Buffers:
    """Return buffers that hold a block each; `most` of them are kept."""
    return Buffers(BLOCK_SIZE + _SLACK, most)


def places(data: memoryview) -> Iterator[int]:
    """Find where segments may begin: behind each marker, unless the one before is too near."""
    last = 0
    for marker in _MARKER.finditer(data):
        if marker.end() - last >= _LEAST:
            last = marker.end()
            yield last


def decode(segment: memoryview, buffers: Buffers, window: bytes = b"") -> Decoded | None:
    """Inflate a segment that begins where a block does, or return None if it is none.

    Where the content before it is known, the last 32 KiB of that are the `window`, and it may
    refer to them.
    """
    pieces = _decoders.decoder.inflate(segment, buffers, window) if segment else None
    if pieces is None:
        return None
    crc = 0
    for piece in pieces:
        crc = crc32(piece, crc)
    return Decoded(pieces, crc, sum(map(len, pieces)))


class _Decoder:
    """One z_stream, used again for each segment."""

    def __init__(self) -> None:
        self._zlib = final_block.load()
        self._stream = final_block.ZStream()
        self._pointer = ctypes.pointer(self._stream)
        code = self._zlib.start(self._pointer)
        if code != _Z_OK:
            raise BundlefsError(f"{self._zlib.name} does not start: inflateInit2 {code}")
        weakref.finalize(self, self._zlib.end, self._pointer)

    def inflate(
        self, segment: memoryview, buffers: Buffers, window: bytes = b""
    ) -> list[memoryview] | None:
        """Return the content of a segment; None if it is none, or has too much."""
        stream = self._stream
        self._zlib.reset(self._pointer)
        self._zlib.set_window(self._pointer, window, len(window))
        held = ctypes.c_char.from_buffer(segment)
        stream.next_in, stream.avail_in = ctypes.addressof(held), len(segment)
        pieces: list[memoryview] = []
        while len(pieces) < _MOST:
            piece, code = self._filled(buffers.take())
            pieces.append(piece)
            if code not in (_Z_OK, _Z_BUF_ERROR):
                return None
            if stream.avail_out:
                ended = not stream.avail_in and stream.data_type == _BETWEEN_BLOCKS
                return pieces if ended else None
        return None

    def _filled(self, buffer: memoryview) -> tuple[memoryview, int]:
        """Inflate into a buffer until it is full, or the input is at its end."""
        stream = self._stream
        held = ctypes.c_char.from_buffer(buffer)
        stream.next_out, stream.avail_out = ctypes.addressof(held), len(buffer)
        code = self._zlib.inflate(self._pointer, 0)
        return buffer[: len(buffer) - stream.avail_out], code


class _PerThread(threading.local):
    """A decoder for each thread that asks, made when it first does."""

    def __init__(self) -> None:
        self.decoder = _Decoder()


_decoders = _PerThread()
