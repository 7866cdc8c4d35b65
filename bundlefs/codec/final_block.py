"""Where the last deflate block of a stream lies, found by zlib while it proves the stream.

Nothing but the calls into zlib may live here. libdeflate marks the last deflate block of every
output as final (BFINAL=1). To append anything, that one bit must be found, and deflate streams
have no index: only a decoder knows where a block starts. zlib's `inflate(..., Z_BLOCK)` returns
at each block boundary and tells in `data_type` how many bits of the last byte read are unused
(0 to 7), 64 when the block just ended was the final one, 128 when it stands at a boundary
[zlib.h, inflate; Mark Adler's gzjoin.c walks the same way]. Python's own `zlib` module has no
Z_BLOCK, hence ctypes: on zlib-ng, which inflates faster, or on libz.so.1, which every Linux has.

The walk inflates everything, so its output is compared with what was deflated: one pass yields
both the position and the proof. zlib only reads here, so its version does not show in a bundle.

Concurrency: each thread has a decoder and an output buffer of its own (about 1.1 MiB), made at
its first call and freed with the thread. ctypes releases the GIL while zlib works.
"""

import contextlib
import ctypes
import functools
import importlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from bundlefs.base.errors import BundlefsError, InconsistentError, UsageError

LIBRARY = "libz.so.1"
CAPACITY = 1 << 20
"""The most bytes that a stream may decode to."""

_SLACK = 512  # zlib leaves its fast loop when less than 258 bytes of output are free
_RAW = -15  # windowBits: a bare deflate stream with a window of 32 KiB
_Z_OK = 0
_Z_BLOCK = 5
_UNUSED_BITS = 7
_WAS_FINAL = 64
_AT_BOUNDARY = 128


class FinalBlock(NamedTuple):
    """The last deflate block of a stream, as bit offsets; bit 0 is the lowest of byte 0.

    `start` is the BFINAL bit itself [RFC 1951, 3.2.3], `end` the bit after the end of block.
    """

    start: int
    end: int


class ZStream(ctypes.Structure):
    """z_stream [zlib.h]; libz refuses it (Z_VERSION_ERROR) where its own has another size.

    That of zlib-ng is the same up to `data_type`, and ends 8 bytes earlier [zlib-ng.h].
    """

    _fields_: ClassVar[Sequence[Any]] = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


_POINTER = ctypes.POINTER(ZStream)


class Zlib(NamedTuple):
    """The functions of one zlib; all take a pointer to a z_stream.

    `start` is inflateInit2 for a bare deflate stream, `reset_to` inflateReset2.
    """

    name: str
    start: Callable[[Any], int]
    inflate: Callable[[Any, int], int]
    reset: Callable[[Any], int]
    end: Callable[[Any], int]
    reset_to: Callable[[Any, int], int]
    set_window: Callable[[Any, bytes, int], int]
    prime: Callable[[Any, int, int], int]
    combine: Callable[[int, int, int], int]


@functools.cache
def load() -> Zlib:
    """Load zlib-ng, or libz where the functions of zlib-ng cannot be found.

    Raises:
        UsageError: neither is there; the text says what to install.
    """
    return _zlib_ng() or _libz()


def _zlib_ng() -> Zlib | None:
    """Find zlib-ng in the extension module that brings it: it exports zlib's functions as zng_*.

    It walks two thirds faster than libz 1.2.13. Nothing promises that a later wheel exports them
    as well, so nothing depends on it.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        library = ctypes.CDLL(importlib.import_module("zlib_ng.zlib_ng").__file__)
        _declare(library, "zng_")
        library.zng_inflateInit2.argtypes = (_POINTER, ctypes.c_int)
        return Zlib(
            "zlib-ng",
            lambda pointer: int(library.zng_inflateInit2(pointer, _RAW)),
            library.zng_inflate,
            library.zng_inflateReset,
            library.zng_inflateEnd,
            library.zng_inflateReset2,
            library.zng_inflateSetDictionary,
            library.zng_inflatePrime,
            library.zng_crc32_combine,
        )
    return None


def _libz() -> Zlib:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise UsageError(
            f"zlib is needed, but {LIBRARY} cannot be loaded ({error}): install the package"
            " zlib1g (Debian, Ubuntu) or zlib (elsewhere)"
        ) from error
    _declare(library, "")
    library.zlibVersion.restype = ctypes.c_char_p
    library.inflateInit2_.argtypes = (_POINTER, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    version, size = library.zlibVersion(), ctypes.sizeof(ZStream)
    return Zlib(
        f"{LIBRARY} {version.decode()}",
        lambda pointer: int(library.inflateInit2_(pointer, _RAW, version, size)),
        library.inflate,
        library.inflateReset,
        library.inflateEnd,
        library.inflateReset2,
        library.inflateSetDictionary,
        library.inflatePrime,
        library.crc32_combine,
    )


def _declare(library: ctypes.CDLL, prefix: str) -> None:
    """Declare the functions that both libraries have, but for the prefix of their names."""
    getattr(library, f"{prefix}inflate").argtypes = (_POINTER, ctypes.c_int)
    getattr(library, f"{prefix}inflateReset").argtypes = (_POINTER,)
    getattr(library, f"{prefix}inflateEnd").argtypes = (_POINTER,)
    getattr(library, f"{prefix}inflateReset2").argtypes = (_POINTER, ctypes.c_int)
    getattr(library, f"{prefix}inflatePrime").argtypes = (_POINTER, ctypes.c_int, ctypes.c_int)
    window = getattr(library, f"{prefix}inflateSetDictionary")
    window.argtypes = (_POINTER, ctypes.c_char_p, ctypes.c_uint)
    combine = getattr(library, f"{prefix}crc32_combine")
    # uLong in zlib, uint32_t in zlib-ng: 32 bits are what both look at.
    combine.restype = ctypes.c_uint32
    combine.argtypes = (ctypes.c_ulong, ctypes.c_ulong, ctypes.c_int64)


def crc32_combine(first: int, second: int, length: int) -> int:
    """Return the CRC-32 of two runs of bytes from that of each and the length of the second."""
    return load().combine(first, second, length)


class _Decoder:
    """One z_stream and the buffer that it inflates into. Both are used again for every stream."""

    def __init__(self) -> None:
        self._zlib = load()
        self._stream = ZStream()
        self._pointer = ctypes.pointer(self._stream)
        self._out = bytearray(CAPACITY + _SLACK)
        self._out_address = address(self._out)
        code = self._zlib.start(self._pointer)
        if code != _Z_OK:
            raise BundlefsError(f"{self._zlib.name} does not start: inflateInit2 {code}")
        weakref.finalize(self, self._zlib.end, self._pointer)

    def find(self, deflated: bytearray, plain: bytes) -> FinalBlock:
        """Do what `find_final_block` says."""
        stream = self._stream
        self._zlib.reset(self._pointer)
        stream.next_in, stream.avail_in = address(deflated), len(deflated)
        stream.next_out, stream.avail_out = self._out_address, len(self._out)
        final = self._walk()
        # bytearray.startswith is a memcmp without a copy; == needs one, or a slice.
        if stream.total_out != len(plain) or not self._out.startswith(plain):
            raise InconsistentError(
                f"a block of {len(plain)} bytes does not decode to itself: the compression "
                "library or the machine's memory is faulty; check the memory, or use level 0"
            )
        return final

    def _walk(self) -> FinalBlock:
        """Inflate block by block until the final one has ended."""
        stream, inflate, pointer = self._stream, self._zlib.inflate, self._pointer
        start = 0
        while True:
            code = inflate(pointer, _Z_BLOCK)
            state = stream.data_type
            if code != _Z_OK or not state & _AT_BOUNDARY:
                raise InconsistentError(
                    f"a compressed block does not decode (zlib code {code}, state {state}): the "
                    "compression library or the machine's memory is faulty; use level 0"
                )
            end = 8 * stream.total_in - (state & _UNUSED_BITS)
            if state & _WAS_FINAL:
                return FinalBlock(start, end)
            start = end


def address(buffer: bytearray) -> int:
    """Return the address of a buffer, which is valid while nothing resizes it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class _PerThread(threading.local):
    """A decoder for each thread that asks."""

    def __init__(self) -> None:
        self.decoder = _Decoder()


@functools.cache
def _decoders() -> _PerThread:
    return _PerThread()


def find_final_block(deflated: bytearray, plain: bytes) -> FinalBlock:
    """Find the final block of `deflated` and prove that it decodes to `plain`.

    Args:
        deflated: a raw deflate stream, at least one byte, not changed.
        plain: what was deflated, at most `CAPACITY` bytes.

    Raises:
        InconsistentError: `deflated` does not decode, or decodes to something else.
        UsageError: zlib is not installed.
    """
    return _decoders().decoder.find(deflated, plain)
