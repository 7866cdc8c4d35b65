"""What a broken library or machine would do to a block, and must not reach a bundle."""

import ctypes
import zlib
from collections.abc import Callable

import deflate as libdeflate
import pytest
from isal import igzip_lib, isal_zlib

from bundlefs.base.errors import InconsistentError, UsageError
from bundlefs.codec import final_block as zblock
from bundlefs.codec.deflate import BLOCK_SIZE, codec_for
from tests.unit.deflated import FINAL_EMPTY, final_deflate, text


def _flipped(made: bytes, position: int) -> bytearray:
    broken = bytearray(made)
    broken[position] ^= 0x10
    return broken


CORRUPTIONS: dict[str, Callable[[bytes], bytearray]] = {
    "a bit in the middle": lambda made: _flipped(made, len(made) // 2),
    "a bit at the start": lambda made: _flipped(made, 0),
    "cut short": lambda made: bytearray(made[: len(made) // 2]),
    "without its last byte": lambda made: bytearray(made[:-1]),
    "of another block": lambda _: final_deflate(text(49_999), 6),
    "of a longer block": lambda _: final_deflate(text(50_000) + b"more", 6),
    "a byte too many": lambda made: bytearray(made) + b"\x00",
    "far too long": lambda _: final_deflate(bytes(4 * BLOCK_SIZE), 6),
    "nothing but an end": lambda _: bytearray(FINAL_EMPTY),
}
corrupted = pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())


@corrupted
def test_a_broken_libdeflate_is_caught(
    corrupt: Callable[[bytes], bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, block, real = codec_for(6), text(50_000), libdeflate.deflate_compress
    good = codec.compress(block)
    wrong = corrupt(bytes(real(block, 6)))
    with monkeypatch.context() as patch:
        patch.setattr(libdeflate, "deflate_compress", lambda *_: wrong)
        with pytest.raises(InconsistentError, match=r"compress|final block"):
            codec.compress(block)
    assert codec.compress(block) == good


class _BrokenDeflater:
    """An isal compressor whose output is replaced, by what it gives at its first call."""

    def __init__(self, output: bytes) -> None:
        self._left = [output]

    def compress(self, _block: bytes) -> bytes:
        return self._left.pop() if self._left else b""

    def flush(self, _mode: int) -> bytes:
        return b""


@corrupted
@pytest.mark.parametrize("level", [1, 2])
def test_a_broken_isal_is_caught(
    level: int, corrupt: Callable[[bytes], bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, block = codec_for(level), text(50_000)
    wrong = bytes(corrupt(codec.compress(block)))
    broken = _BrokenDeflater(wrong)
    monkeypatch.setattr(isal_zlib, "compressobj", lambda *_, **__: broken)
    with pytest.raises(InconsistentError, match="does not decode to what it was made of"):
        codec.compress(block)


@pytest.mark.parametrize("other", [text(49_999) + b"!", text(49_999), text(50_000) + b"!"], ids=len)
def test_a_well_formed_result_of_another_block_is_caught(
    other: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, block = codec_for(1), text(50_000)
    broken = _BrokenDeflater(codec.compress(other))
    monkeypatch.setattr(isal_zlib, "compressobj", lambda *_, **__: broken)
    with pytest.raises(InconsistentError, match="decodes to something else"):
        codec.compress(block)


def test_a_final_block_of_isal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It decodes to the block, but nothing could follow it."""
    block = text(50_000)
    broken = _BrokenDeflater(igzip_lib.compress(block, 1))
    codec = codec_for(1)
    monkeypatch.setattr(isal_zlib, "compressobj", lambda *_, **__: broken)
    with pytest.raises(InconsistentError):
        codec.compress(block)


def test_an_end_within_a_byte_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed block with its flag cleared decodes and is not final, but ends mid-byte."""
    block, codec = b"a", codec_for(1)
    fixed = zlib.compressobj(wbits=-15, strategy=zlib.Z_FIXED)
    made = fixed.compress(block) + fixed.flush()
    mid_byte = bytes([made[0] ^ 1]) + made[1:]
    assert zlib.decompressobj(wbits=-15).decompress(mid_byte) == block
    monkeypatch.setattr(isal_zlib, "compressobj", lambda *_, **__: _BrokenDeflater(mid_byte))
    with pytest.raises(InconsistentError):
        codec.compress(block)


@pytest.mark.parametrize("final", [zblock.FinalBlock(1, 8), zblock.FinalBlock(0, 8)])
def test_a_zlib_that_points_elsewhere_is_caught(
    final: zblock.FinalBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, codec = text(50_000), codec_for(6)
    monkeypatch.setattr(zblock, "find_final_block", lambda *_: final)
    with pytest.raises(InconsistentError, match="bits"):
        codec.compress(block)


def test_a_decoder_that_failed_works_on() -> None:
    good = final_deflate(text(1000), 6)
    with pytest.raises(InconsistentError, match="does not decode to itself"):
        zblock.find_final_block(good, text(999))
    with pytest.raises(InconsistentError, match="does not decode"):
        zblock.find_final_block(bytearray(b"\xff" * 100), text(1000))
    assert zblock.find_final_block(good, text(1000)).start == 0


def test_a_missing_zlib_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zblock, "LIBRARY", "libz-that-is-not-there.so.1")
    monkeypatch.setattr(zblock, "_zlib_ng", lambda: None)
    with pytest.raises(UsageError, match=r"libz-that-is-not-there\.so\.1.*zlib1g"):
        zblock.load.__wrapped__()


def test_a_zlib_of_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libz itself compares the size of z_stream with its own."""
    monkeypatch.setattr(ctypes, "sizeof", lambda _: 8)
    monkeypatch.setattr(zblock, "load", zblock._libz)  # noqa: SLF001 - zlib-ng does not ask
    with pytest.raises(Exception, match="does not start: inflateInit2 -6"):
        zblock._Decoder()  # noqa: SLF001 - its only way to fail
