"""Block compression against stock zlib and gunzip, which know nothing of how it was made."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import functools
import gzip
import subprocess
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import deflate as libdeflate
import pytest
from cryptography.hazmat.bindings import _rust
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.base.errors import UsageError
from bundlefs.codec import deflate
from bundlefs.codec import final_block as zblock
from bundlefs.codec.deflate import (
    BLOCK_SIZE,
    GZIP_HEADER,
    LEVELS,
    Codec,
    codec_for,
    crc32,
    crc32_join,
    gzip_trailer,
    stored_size,
)
from tests.unit.deflated import FINAL_EMPTY, final_deflate, text

SIZES = [1, 2, 5, 300, 65534, 65535, 65536, 65537, 131_071, BLOCK_SIZE - 1, BLOCK_SIZE]
JOINED_LEVELS = range(3, 10)


def zeros(size: int) -> bytes:
    return bytes(size)


def noise(size: int) -> bytes:
    return Random(size).randbytes(size)


@functools.cache
def _program() -> bytes:
    """1 MiB of a real program, from the middle of the largest one that bundlefs depends on."""
    whole = Path(_rust.__file__).read_bytes()
    assert len(whole) > 2 * BLOCK_SIZE
    return whole[len(whole) // 2 :][:BLOCK_SIZE]


def program(size: int) -> bytes:
    return _program()[:size]


def mixed(size: int) -> bytes:
    """Text, noise and zeros in turn, so that one block has stored and coded parts."""
    third = size // 3 + 1
    return (text(third) + noise(third) + zeros(third))[:size]


def zeros_but_one(size: int) -> bytes:
    return bytes(size - 1) + b"\x01"


KINDS: list[Callable[[int], bytes]] = [zeros, noise, text, program, mixed, zeros_but_one]


def member(codec: Codec, blocks: list[bytes]) -> bytes:
    """Join blocks into a gzip member as a bundle does."""
    crc = 0
    for block in blocks:
        crc = crc32(block, crc)
    trailer = gzip_trailer(crc, sum(map(len, blocks)))
    return b"".join((GZIP_HEADER, *map(codec.compress, blocks), trailer))


def inflate_open(made: bytes) -> bytes:
    """Inflate with stock zlib; the stream must be complete up to, and without, its final block."""
    decoder = zlib.decompressobj(wbits=-15)
    plain, was_open = decoder.decompress(made), not decoder.eof
    assert was_open
    assert decoder.decompress(FINAL_EMPTY) == b""
    assert decoder.eof
    assert decoder.unused_data == b""
    return plain


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("level", range(10))
def test_decodes_to_the_block_at_every_size(level: int, kind: Callable[[int], bytes]) -> None:
    codec = codec_for(level)
    for size in SIZES:
        block = kind(size)
        made = codec.compress(block)
        assert type(made) is bytes
        assert inflate_open(made) == block
        assert len(made) <= stored_size(size)


@given(block=st.binary(min_size=1, max_size=400), level=st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_decodes_any_short_block(block: bytes, level: int) -> None:
    made = codec_for(level).compress(block)
    assert inflate_open(made) == block
    assert len(made) <= stored_size(len(block))


@given(
    seeds=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 70_000)), max_size=6),
    level=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_blocks_of_all_kinds_join_in_any_order(
    seeds: list[tuple[Callable[[int], bytes], int]], level: int
) -> None:
    blocks = [kind(size) for kind, size in seeds]
    joined = member(codec_for(level), blocks)
    decoder = zlib.decompressobj(wbits=31)
    assert decoder.decompress(joined) == b"".join(blocks)
    assert decoder.eof
    assert decoder.unused_data == b""


@pytest.mark.parametrize("level", range(10))
def test_a_member_is_one_to_gunzip(level: int) -> None:
    blocks = [kind(BLOCK_SIZE) for kind in KINDS] + [text(12_345)]
    joined = member(codec_for(level), blocks)
    done = subprocess.run(["gunzip"], input=joined, capture_output=True, check=True)
    assert done.stdout == b"".join(blocks)
    assert done.stderr == b""


def test_an_empty_member_is_one_too() -> None:
    assert gzip.decompress(GZIP_HEADER + gzip_trailer(0, 0)) == b""


def test_the_trailer_counts_modulo_4_gib() -> None:
    assert gzip_trailer(0x01020304, 2**32 + 5) == b"\x03\x00\x04\x03\x02\x01\x05\x00\x00\x00"


def test_the_header_tells_no_time() -> None:
    assert GZIP_HEADER == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


def test_crc_goes_on_from_a_value() -> None:
    assert crc32(b"bundle") == zlib.crc32(b"bundle")
    assert crc32(b"dle", crc32(b"bun")) == zlib.crc32(b"bundle")


@pytest.mark.parametrize("level", JOINED_LEVELS)
def test_every_bit_position_of_the_end_is_joined(level: int) -> None:
    """All eight alignments of the final block's end and start occur, and all decode."""
    codec, seen_starts, seen_ends = codec_for(level), set(), set()
    for seed in range(400):
        rng = Random(seed)
        block = text(20_000 + 37 * seed) + rng.randbytes(seed % 3 * 7000) + text(1 + 11 * seed)
        raw = final_deflate(block, _libdeflate_level(codec))
        start, end = zblock.find_final_block(raw, block)
        seen_starts.add(start % 8)
        seen_ends.add(end % 8)
        made = codec.compress(block)
        assert inflate_open(made) == block
        assert len(made) - len(raw) == (0 if end % 8 == 0 else 4 if end % 8 <= 5 else 5)
        if seen_starts == seen_ends == set(range(8)) and seed >= 40:
            break
    assert seen_ends == set(range(8))
    assert seen_starts == set(range(8))


def _libdeflate_level(codec: Codec) -> int:
    return int(codec.name.removeprefix("libdeflate-"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_the_final_bit_changes(kind: Callable[[int], bytes]) -> None:
    block = kind(500_000)
    raw = final_deflate(block, 6)
    start, end = zblock.find_final_block(raw, block)
    made = deflate.Libdeflate(6)(block)
    opened = bytearray(raw)
    opened[start // 8] &= ~(1 << start % 8)
    assert made[: len(raw)] == opened
    assert raw[start // 8] >> start % 8 & 1 == 1
    assert 0 <= 8 * len(raw) - end < 8


def test_bits_after_the_end_do_not_matter() -> None:
    """What fills the last byte is anything [RFC 1951 asks nothing of it], and is cleared."""
    for seed in range(40):
        block = text(20_000 + 37 * seed)
        raw = final_deflate(block, 6)
        final = zblock.find_final_block(raw, block)
        clean = deflate.Libdeflate(6)(block)
        raw[-1] |= 0xFF & ~((1 << (final.end % 8 or 8)) - 1)
        assert zblock.find_final_block(raw, block) == final
        assert deflate._opened(raw, final) == clean  # noqa: SLF001 - no library makes such bytes


def test_the_final_block_of_many_starts_late() -> None:
    block = program(BLOCK_SIZE // 2) + text(BLOCK_SIZE // 2)
    raw = final_deflate(block, 6)
    final = zblock.find_final_block(raw, block)
    assert 8 * len(raw) // 4 < final.start < final.end


@pytest.mark.parametrize("level", range(10))
def test_the_same_block_gives_the_same_bytes(level: int) -> None:
    codec = codec_for(level)
    for kind in KINDS:
        first = codec.compress(kind(200_000))
        codec.compress(noise(1000))
        assert codec.compress(bytes(bytearray(kind(200_000)))) == first


@pytest.mark.parametrize("level", [0, 1, 2, 3, 6])
def test_threads_do_not_disturb_each_other(level: int) -> None:
    codec = codec_for(level)
    blocks = [kind(size) for kind in KINDS for size in (1, 70_000, 300_000)]
    expected = [codec.compress(block) for block in blocks]
    barrier = threading.Barrier(8)

    def hammer(seed: int) -> bool:
        order = list(range(len(blocks))) * 2
        Random(seed).shuffle(order)
        barrier.wait()
        return all(codec.compress(blocks[i]) == expected[i] for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(hammer, range(8)))


def test_level_0_is_arithmetic() -> None:
    for size in SIZES:
        assert len(codec_for(0).compress(text(size))) == stored_size(size)
        assert len(codec_for(0).compress(zeros(size))) == stored_size(size)
    assert stored_size(0) == 0
    assert stored_size(65535) == 65540
    assert stored_size(65536) == 65546
    assert stored_size(BLOCK_SIZE) == BLOCK_SIZE + 17 * 5


@pytest.mark.parametrize("level", range(1, 10))
def test_levels_compress(level: int) -> None:
    assert len(codec_for(level).compress(text(BLOCK_SIZE))) < BLOCK_SIZE // 3
    assert len(codec_for(level).compress(zeros(BLOCK_SIZE))) < 4096


def test_higher_levels_are_smaller() -> None:
    sizes = [len(codec_for(level).compress(program(BLOCK_SIZE))) for level in range(10)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("level", range(1, 10))
def test_zeros_are_deflated_once(level: int) -> None:
    codec = codec_for(level)
    first = codec.compress(zeros(BLOCK_SIZE))
    assert codec.compress(bytes(bytearray(BLOCK_SIZE))) is first
    assert inflate_open(codec.compress(zeros(777))) == zeros(777)


@pytest.mark.parametrize("level", [-1, 10, 99])
def test_a_level_out_of_range_is_named(level: int) -> None:
    with pytest.raises(UsageError, match=f"level {level}: choose 0 .* to 9"):
        codec_for(level)


@pytest.mark.parametrize("block", [b"", bytes(BLOCK_SIZE + 1)], ids=len)
def test_a_block_of_a_wrong_size_is_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 1048576 bytes"):
        codec_for(6).compress(block)


@pytest.mark.parametrize("level", range(10))
def test_the_version_tells_what_determines_the_bytes(level: int) -> None:
    codec = codec_for(level)
    assert (codec.level, codec.name) == (level, LEVELS[level].name)
    assert codec.version.startswith(f"{codec.name}, ")
    assert LEVELS[level].libraries in codec.version
    assert deflate.make_codec(level, LEVELS[level]).version == codec.version


def test_levels_have_versions_of_their_own() -> None:
    assert len({codec_for(level).version for level in range(10)}) == 10


def test_the_version_shows_what_a_library_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same library version that finds other matches is another version of ours."""
    real = libdeflate.deflate_compress
    before = deflate.make_codec(6, deflate.Libdeflate(6)).version
    monkeypatch.setattr(libdeflate, "deflate_compress", lambda block, _: real(block, 7))
    assert deflate.make_codec(6, deflate.Libdeflate(6)).version != before


def test_zlib_ng_and_libz_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [text(1), text(70_000), Random(1).randbytes(100_000), bytes(BLOCK_SIZE)]
    raw = [final_deflate(block, 6) for block in blocks]
    assert zblock.load().name == "zlib-ng"
    by_ng = [zblock.find_final_block(one, block) for one, block in zip(raw, blocks, strict=True)]
    monkeypatch.setattr(zblock, "load", zblock._libz)  # noqa: SLF001 - the one not preferred
    libz = zblock._Decoder()  # noqa: SLF001 - a decoder that was not made yet
    assert [libz.find(one, block) for one, block in zip(raw, blocks, strict=True)] == by_ng


@pytest.mark.parametrize("library", [zblock._zlib_ng, zblock._libz])  # noqa: SLF001 - each
def test_crcs_are_joined(
    library: Callable[[], zblock.Zlib], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zblock, "load", library)
    first, second = Random(1).randbytes(1000), Random(1).randbytes(BLOCK_SIZE)
    joined = crc32_join(zlib.crc32(first), zlib.crc32(second), len(second))
    assert joined == zlib.crc32(first + second)
    assert crc32_join(0, zlib.crc32(second), len(second)) == zlib.crc32(second)
