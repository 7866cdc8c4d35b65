"""The parallel way through a gzip stream says what the one in order does, whatever the stream is.

Streams are made of small blocks, as bundlefs makes them of large ones, and then changed.
"""

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.base.buffers import Buffers
from bundlefs.base.errors import BundleError
from bundlefs.base.workers import Workers
from bundlefs.codec import final_block, segments
from bundlefs.codec.deflate import GZIP_HEADER, LEVELS, gzip_trailer, make_codec
from bundlefs.codec.resumed import ResumedMember
from bundlefs.unbundling import inflating
from bundlefs.unbundling.inflating import inflated_apart
from bundlefs.unbundling.unseal import inflated

CODECS = {level: make_codec(level, LEVELS[level]) for level in (0, 1, 2, 3, 6)}
MARKER = b"\0\0\xff\xff"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as made:
        yield made


def blocks(draw: random.Random, sizes: list[int]) -> list[bytes]:
    """Return blocks that compress a bit, with markers in some."""
    words = [draw.randbytes(draw.randrange(3, 9)) for _ in range(50)] + [MARKER]
    return [b"".join(draw.choices(words, k=size // 6 + 1))[:size] for size in sizes]


def stream(plain: list[bytes], level: int | None) -> bytes:
    """Return a gzip stream of blocks that do not need each other, or (None) of such that do."""
    content = b"".join(plain)
    made = (
        [CODECS[level].compress(block) for block in plain] if level is not None else flushed(plain)
    )
    return b"".join([GZIP_HEADER, *made, gzip_trailer(zlib.crc32(content), len(content))])


def flushed(plain: list[bytes]) -> list[bytes]:
    deflater = zlib.compressobj(wbits=-15)
    return [deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH) for block in plain]


def in_pieces(data: bytes, size: int) -> Iterator[memoryview]:
    for start in range(0, len(data), size):
        yield memoryview(bytearray(data[start : start + size]))


def verdict(plain: Iterator[bytes | memoryview]) -> tuple[bytes, str]:
    """Return the content, or the error's text alone."""
    found = b""
    try:
        for piece in plain:
            found += piece
    except BundleError as error:
        return b"", str(error)
    return found, ""


def of_both(data: bytes, size: int, workers: Workers) -> list[tuple[bytes, str]]:
    return [
        verdict(inflated(map(bytes, in_pieces(data, size)))),
        verdict(inflated_apart(in_pieces(data, size), workers)),
    ]


Change = Callable[[bytes, random.Random], bytes]


def flipped(data: bytes, draw: random.Random) -> bytes:
    copy = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        copy[draw.randrange(len(copy))] ^= 1 << draw.randrange(8)
    return bytes(copy)


def cut_short(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def cut_at_a_marker(data: bytes, draw: random.Random) -> bytes:
    return draw.choice(behind_markers(data))


def behind_markers(data: bytes) -> list[bytes]:
    parts = data.split(MARKER)
    return [MARKER.join(parts[:count]) + MARKER for count in range(1, len(parts))] or [data]


def reordered(data: bytes, draw: random.Random) -> bytes:
    first, *parts = data.split(MARKER)
    draw.shuffle(parts)
    return MARKER.join([first, *parts])


def doubled(data: bytes, draw: random.Random) -> bytes:
    parts = data.split(MARKER)
    at = draw.randrange(len(parts))
    return MARKER.join([*parts[: at + 1], *parts[at:]])


def left_out(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, 200) :]


def with_a_marker(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + MARKER + data[at:]


def joined(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice([data, gzip.compress(data), b"", b"\0", b"x" * 30])


CHANGES: list[Change] = [
    flipped, cut_short, cut_at_a_marker, reordered, doubled, left_out, with_a_marker, joined,
]  # fmt: skip
SIZES = st.lists(st.integers(1, 3000), min_size=1, max_size=12)


@settings(max_examples=400, deadline=None)
@given(
    sizes=SIZES,
    level=st.sampled_from([None, *CODECS]),
    changes=st.lists(st.sampled_from(CHANGES), max_size=2),
    pieces=st.sampled_from([1, 50, 1000, 10_000, 1 << 20]),
    draw=st.randoms(use_true_random=False),
)
def test_any_change_gives_the_same_verdict(  # noqa: PLR0913, PLR0917 - what hypothesis draws
    workers: Workers,
    sizes: list[int],
    level: int | None,
    changes: list[Change],
    pieces: int,
    draw: random.Random,
) -> None:
    plain = blocks(draw, sizes)
    data = stream(plain, level)
    for change in changes:
        data = change(data, draw) or b"\0"
    in_order, apart = of_both(data, pieces, workers)
    assert apart == in_order
    if not changes:
        assert apart == (b"".join(plain), "")


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the decoder in order takes over, as sizes of what is before."""
    places: list[int] = []

    def watched(window: bytes, crc: int, size: int) -> ResumedMember:
        places.append(size)
        return ResumedMember(window, crc, size)

    monkeypatch.setattr(inflating, "ResumedMember", watched)
    return places


@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_a_bundles_own_stream_is_inflated_apart_to_its_last_block(
    level: int, workers: Workers, resumed: list[int]
) -> None:
    """Also where a marker stands in the data, and where one is cut by the end of a piece."""
    draw = random.Random(level)  # noqa: S311  # no secrets
    plain = blocks(draw, [3000] * 40)
    plain[20] = draw.randbytes(1000) + MARKER + draw.randbytes(1000) + MARKER + draw.randbytes(999)
    data = stream(plain, level)
    content = b"".join(plain)
    assert verdict(inflated_apart(in_pieces(data, 5000), workers)) == (content, "")
    assert len(resumed) == 1
    assert resumed[0] > len(content) - 2 * 3000


def test_blocks_that_need_each_other(workers: Workers, resumed: list[int]) -> None:
    """They are inflated one after the other, as pigz makes them."""
    plain = [b"of the same words" * 200] * 20
    data = stream(plain, None)
    assert verdict(inflated_apart(in_pieces(data, 500), workers)) == (b"".join(plain), "")
    assert len(resumed) == 1


class Bits:
    """Writes deflate by hand [RFC 1951, 3.1.1]."""

    def __init__(self) -> None:
        self._bits: list[int] = []

    def number(self, value: int, bits: int) -> None:
        self._bits += [value >> at & 1 for at in range(bits)]

    def code(self, value: int, bits: int) -> None:
        self._bits += [value >> at & 1 for at in reversed(range(bits))]

    def flush(self) -> bytes:
        """Add an empty stored block, and return all."""
        self.number(0, 3)
        self._bits += [0] * (-len(self._bits) % 8)
        bits = iter(self._bits)
        whole = bytes(
            sum(bit << at for at, bit in enumerate(byte)) for byte in zip(*[bits] * 8, strict=True)
        )
        return whole + MARKER


def reaching_back(distance: int, before: int) -> bytes:
    """Return `before` bytes in a stored block, then 3 bytes from so far back [RFC 1951, 3.2.5]."""
    bases = [1, 2, 3, 4] + [(2 + odd << extra) + 1 for extra in range(1, 14) for odd in (0, 1)]
    code = max(at for at, base in enumerate(bases) if base <= distance)
    bits = Bits()
    bits.number(0b010, 3)  # not final, fixed codes
    bits.code(1, 7)  # length 3
    bits.code(code, 5)
    bits.number(distance - bases[code], max(0, code // 2 - 1))
    bits.code(0, 7)  # end of block
    return b"\0" + struct.pack("<HH", before, before ^ 0xFFFF) + bytes(before) + bits.flush()


@pytest.mark.parametrize("library", [final_block.load, final_block._libz])  # noqa: SLF001
@pytest.mark.parametrize("before", [0, 1, 2, 100, 257, 8192, 20_000, 32_767, 32_768, 40_000])
def test_a_segment_that_reaches_back_before_its_start_is_none(
    library: Callable[[], final_block.Zlib], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_block, "load", library)
    decoder, buffers = segments._Decoder(), segments.make_buffers(1)  # noqa: SLF001
    for distance in {1, before, before + 1, before + 2, 2 * before + 1, 32_768}:
        if not 1 <= distance <= 32_768:
            continue
        found = decoder.inflate(memoryview(bytearray(reaching_back(distance, before))), buffers)
        assert found == ([bytes(before + 3)] if distance <= before else None), distance


def test_what_is_no_run_of_whole_blocks_is_no_segment() -> None:
    buffers = segments.make_buffers(1)
    whole = flushed([b"some content" * 20])[0]
    assert segments.decode(memoryview(bytearray(whole)), buffers)
    final = zlib.compress(b"some content", wbits=-15)
    for other in (
        b"",
        whole[:-1],
        whole[:-4],
        whole + b"\0",
        whole + final,
        final,
        b"\x07" + whole,
    ):
        assert segments.decode(memoryview(bytearray(other)), buffers) is None, other


def test_a_segment_takes_no_more_memory_than_its_share() -> None:
    many = flushed([bytes(1 << 20)] * 20)
    buffers = segments.make_buffers(4)
    assert segments.decode(memoryview(bytearray(b"".join(many[:4]))), buffers)
    assert segments.decode(memoryview(bytearray(b"".join(many))), buffers) is None


def test_a_buffer_is_used_again_once_no_view_of_it_is_left() -> None:
    buffers = Buffers(100, 2)
    first = buffers.take()
    owner, part = first.obj, first[10:20]
    del first
    assert buffers.take().obj is not owner
    del part
    assert owner in [view.obj for view in [buffers.take(), buffers.take()] if view.obj is owner]
