"""Deflate block by block, joined into one gzip member.

The tar stream is cut into blocks of 1 MiB, each deflated without knowledge of the others, so
any of them can be made again alone, and many can be made at a time. Each result is a run of
deflate blocks that ends on a byte boundary, none of them marked final. Concatenated between
`GZIP_HEADER` and `gzip_trailer`, the results are one gzip member [RFC 1951, RFC 1952], as readers
of bundles need it [contrib/format.md, gzip].

Nothing leaves `Codec.compress` that was not decoded and found equal to its input. `LEVELS` was
chosen by the measurements of `contrib/levels`.

Concurrency: everything here may be called from any number of threads. isal, libdeflate and zlib
release the GIL.
"""

import functools
import struct
from dataclasses import dataclass, field
from typing import Protocol

import deflate
import isal
from isal import igzip_lib, isal_zlib

from bundlefs.base.checks import MOST, whole
from bundlefs.base.errors import InconsistentError, UsageError
from bundlefs.base.spans import ceil_div
from bundlefs.codec import final_block

BLOCK_SIZE = 1 << 20

GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\x03"
"""Deflate, no flags, no mtime, no extra flags, made on Unix [RFC 1952, 2.3]."""

_FINAL_EMPTY = b"\x03\x00"  # BFINAL=1, fixed codes, end of block [RFC 1951, 3.2.6]
_STORED_MAX = 0xFFFF  # LEN is 16 bits [RFC 1951, 3.2.4]
_STORED_HEADER = struct.Struct("<BHH")  # BFINAL=0 and BTYPE=00, padded; LEN; NLEN
_STORED_EMPTY = _STORED_HEADER.pack(0, 0, _STORED_MAX)
_ZEROS = bytes(BLOCK_SIZE)
_APART = 8
"""Bytes at the head of a block that ISA-L deflates apart at its lower levels: see `Isal`."""

_SENTINEL = b"\x55"
_FINAL_SENTINEL = _STORED_HEADER.pack(1, 1, 1 ^ _STORED_MAX) + _SENTINEL
"""A final block that holds one byte. It decodes only where a byte boundary and a block end are."""


def gzip_trailer(crc: int, size: int) -> bytes:
    """Return the end of the member: a final empty block, `crc` and `size` of all plain bytes."""
    return _FINAL_EMPTY + struct.pack("<II", crc, size & 0xFFFFFFFF)


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """Return the CRC-32 of some bytes, whose own is `value`, followed by `data`."""
    return isal_zlib.crc32(data, value)


def crc32_join(first: int, second: int, length: int) -> int:
    """Return the CRC-32 of two runs of bytes from that of each; `length` is the second's."""
    return final_block.crc32_combine(first, second, length)


def stored_size(size: int) -> int:
    """Return the size of `size` bytes in stored blocks, 5 bytes more each; no level exceeds it."""
    return size + ceil_div(size, _STORED_MAX) * _STORED_HEADER.size


class Encoder(Protocol):
    """One way to deflate a block; a call returns non-final deflate blocks that were proven.

    `name` has its parameters, `libraries` the versions of the libraries that it calls.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class
    @property
    def libraries(self) -> str: ...  # noqa: D102 - see the class
    def __call__(self, block: bytes, /) -> bytes: ...  # noqa: D102 - see the class


@dataclass(frozen=True, slots=True)
class Stored:
    """No compression: pieces of 65,535 bytes with 5 bytes of header each."""

    name = "stored"
    libraries = "none"

    def __call__(self, block: bytes) -> bytes:
        """Store `block`."""
        view = memoryview(block)
        pieces: list[bytes | memoryview] = []
        for start in range(0, len(block), _STORED_MAX):
            piece = view[start : start + _STORED_MAX]
            pieces += [_STORED_HEADER.pack(0, len(piece), len(piece) ^ _STORED_MAX), piece]
        return _proven(b"".join(pieces), block)


@dataclass(frozen=True, slots=True)
class Isal:
    """ISA-L, by far the fastest. Its output ends on a byte boundary by itself (a sync flush).

    Its bytes depend on the processor too (it has code for AVX2 and for AVX-512 that finds
    different matches), which the probe in `Codec.version` shows.

    At levels 1 and 2 they would depend on where in memory its stream structure lies: the first
    hash that it looks up, that of offset 2, is taken of the structure's address instead of the
    data [ISA-L 2.31, igzip_icf_body_h1_gr_bt.asm]. What follows a flush is hashed properly, so
    the first bytes are flushed apart, which costs 6 to 40 bytes in a block.
    """

    level: int
    memory: int

    @property
    def name(self) -> str:
        """Level and memLevel: with small buffers codes change more often, which suits binaries."""
        return f"isal-{self.level}-{self.memory}"

    @property
    def libraries(self) -> str:
        """Versions of the binding and of ISA-L."""
        return f"isal {isal.__version__} (ISA-L {isal.ISAL_VERSION})"

    def __call__(self, block: bytes) -> bytes:
        """Deflate `block`."""
        deflater = isal_zlib.compressobj(self.level, wbits=-15, memLevel=self.memory)
        made: list[bytes] = []
        for piece in self._pieces(memoryview(block)):
            made += (deflater.compress(piece), deflater.flush(isal_zlib.Z_SYNC_FLUSH))
        return _proven(b"".join(made), block)

    def _pieces(self, block: memoryview) -> tuple[memoryview, ...]:
        apart = self.level in (1, 2) and len(block) > _APART
        return (block[:_APART], block[_APART:]) if apart else (block,)


@dataclass(frozen=True, slots=True)
class Libdeflate:
    """libdeflate, with the smallest output for its time. Its final block is opened again.

    zlib takes part as a decoder only, so its version is not among `libraries`.
    """

    level: int

    @property
    def name(self) -> str:
        """The level of libdeflate."""
        return f"libdeflate-{self.level}"

    @property
    def libraries(self) -> str:
        """Version of the binding, which brings its own libdeflate."""
        return f"deflate {deflate.__version__}"

    def __call__(self, block: bytes) -> bytes:
        """Deflate `block`."""
        # deflate 0.7 returns bytes, which cannot be edited; the copy costs 0.1 %.
        made = bytearray(deflate.deflate_compress(block, self.level))
        return _opened(made, final_block.find_final_block(made, block))


def _opened(made: bytearray, final: final_block.FinalBlock) -> bytes:
    """Make the final block of `made` an ordinary one that ends on a byte boundary.

    Safe without decoding again: zlib has read `made` bit by bit, and of these bits one alone
    changes, BFINAL of the last block. No other bit's meaning depends on it; a decoder merely
    goes on after the end of block, where an empty stored block follows whose padding is the
    rest of the byte. Where the block ends with its byte, the boundary is there already.
    """
    index, bit = final.start // 8, 1 << final.start % 8
    used = final.end % 8
    if not made[index] & bit or ceil_div(final.end, 8) != len(made):
        raise InconsistentError(
            f"zlib tells a final block at bits {final.start} to {final.end} of {len(made)} "
            f"bytes, where none is: {final_block.load().name} cannot be used here; use level 0 to 2"
        )
    made[index] ^= bit
    if not used:
        return bytes(made)
    made[-1] &= (1 << used) - 1
    # The 3 bits of the stored block's header still fit into the last byte, or take one more.
    header_fits = used + 3 <= 8  # noqa: PLR2004 - bits
    return b"".join((made, _STORED_EMPTY[1:] if header_fits else _STORED_EMPTY))


def _proven(made: bytes, block: bytes) -> bytes:
    """Return `made` if it decodes to `block`, is not final and ends on a byte boundary.

    ISA-L's decoder is the fastest there is for its own streams when it knows the size.
    """
    decoder = igzip_lib.IgzipDecompressor()
    try:
        decoded = decoder.decompress(made, len(block) + 1)
        after = decoder.decompress(_FINAL_SENTINEL)
    except (igzip_lib.IsalError, EOFError) as error:  # type: ignore[misc]  # its stub says instance
        raise InconsistentError(_disagreement(block, str(error))) from error
    if decoded != block or after != _SENTINEL or not decoder.eof or decoder.unused_data:
        raise InconsistentError(_disagreement(block, "it decodes to something else"))
    return made


def _disagreement(block: bytes, what: str) -> str:
    return (
        f"a compressed block of {len(block)} bytes does not decode to what it was made of "
        f"({what}): the compression library or the machine's memory is faulty; check the "
        "memory, or use another level"
    )


_STORED = Stored()

LEVELS: tuple[Encoder, ...] = (
    _STORED,
    Isal(1, 8),
    Isal(3, 3),
    Libdeflate(2),
    Libdeflate(4),
    Libdeflate(5),
    Libdeflate(6),
    Libdeflate(7),
    Libdeflate(10),
    Libdeflate(12),
)


@dataclass(frozen=True, slots=True)
class Codec:
    """Deflates blocks: the same block and `version` always come out as the same bytes.

    Attributes:
        level: 0 to 9.
        name: encoder and parameters, as "libdeflate-6".
        version: all that determines the bytes: name, libraries, and the CRC-32 of what a fixed
            sample is deflated to, here and now, since libraries choose code by processor.
    """

    level: int
    name: str
    version: str
    encoder: Encoder = field(repr=False)

    def compress(self, block: bytes) -> bytes:
        """Deflate `block`, 1 to `BLOCK_SIZE` bytes.

        Returns:
            Non-final deflate blocks that end on a byte boundary and were proven to decode to
            `block`: at most `stored_size(len(block))` bytes.

        Raises:
            InconsistentError: the proof failed.
            ValueError: `block` is empty or too long.
        """
        if not 0 < len(block) <= BLOCK_SIZE:
            raise ValueError(f"a block has 1 to {BLOCK_SIZE} bytes, not {len(block)}")
        # A prefix test is a memcmp for every length, and over at the first byte of most data.
        if self.level and _ZEROS.startswith(block):
            return _zeros(self, len(block))
        return _fitted(self.encoder, block)


@functools.lru_cache(maxsize=4)  # whole blocks, and the last one of a stream or two
def _zeros(codec: Codec, size: int) -> bytes:
    return _fitted(codec.encoder, _ZEROS[:size])


def _fitted(encoder: Encoder, block: bytes) -> bytes:
    """Deflate `block`, or store it where that is smaller."""
    made = encoder(block)
    return made if len(made) <= stored_size(len(block)) else _STORED(block)


@functools.cache
def _sample() -> bytes:
    """Return 256 kB, always the same, which encoders that search differently deflate differently.

    A walk through a few thousand words, most steps to a near one: matches of all lengths and
    distances that overlap, as in real text, then the same as 16-bit numbers, as in programs.
    """
    state, place, walk = 1, 0, []
    # A third of the time that a mount takes to be ready would go here: so it is done plainly.
    for _ in range(40_000):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF  # ISO C's own generator
        step = state >> 16
        place = (place + step % 7 if step % 11 else step * step) % 3000
        walk.append(place)
    words = [b"%x" % (n * n) for n in range(3000)]
    text = b" ".join([words[n] for n in walk[:30_000]])
    return text + struct.pack(f"<{len(walk)}H", *walk)


def make_codec(level: int, encoder: Encoder) -> Codec:
    """Make a codec around `encoder`, and try it on a sample, whose result is proven to decode."""
    probe = crc32(_proven(_fitted(encoder, _sample()), _sample()))
    version = f"{encoder.name}, {encoder.libraries}, probe {probe:08x}"
    return Codec(level, encoder.name, version, encoder)


def codec_for(level: int) -> Codec:
    """Return the codec of a level.

    Raises:
        UsageError: `level` is not 0 to 9, or a library that it needs is not installed.
    """
    if whole("level", level, -MOST) not in range(len(LEVELS)):
        raise UsageError(f"no compression level {level}: choose 0 (none) to {len(LEVELS) - 1}")
    return _codec_for(level)


@functools.cache
def _codec_for(level: int) -> Codec:
    return make_codec(level, LEVELS[level])
