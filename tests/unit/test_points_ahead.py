"""Points that are made ahead are those of `indexed_gzip`, and no read tells the difference."""

import gzip
import io
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import indexed_gzip
import pytest

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.codec import final_block, gzip_points, points_ahead
from bundlefs.codec.gzip_points import GzipPoints
from bundlefs.codec.points_ahead import Index, Point, PointMaker

CHUNK = 64 << 10
DRAW = random.Random(1)  # noqa: S311  # no secrets
WORDS = [DRAW.randbytes(DRAW.randrange(2, 12)) for _ in range(300)]
CONTENT = b"".join(DRAW.choices(WORDS, k=200_000))[: 20 * CHUNK - 5]


def zipped(content: bytes, name: str = "", level: int = 6) -> bytes:
    """Return a gzip file, with a name in its header if there is one."""
    packed = io.BytesIO()
    with gzip.GzipFile(name, "wb", level, packed, 0) as file:
        file.write(content)
    return packed.getvalue()


WHOLE = zipped(CONTENT)


class Stream:
    """A gzip stream in memory, which cannot be read from `broken` on."""

    def __init__(self, data: bytes, broken: int | None = None) -> None:
        self._data = data
        self.size = len(data)
        self._broken = self.size if broken is None else broken

    def read(self, span: Span) -> bytes:
        if span.stop > self._broken:
            raise BundleError("it cannot be read there")
        return self._data[span.start : span.stop]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_points, "SPACING", CHUNK)
    monkeypatch.setattr(gzip_points, "_READ", 1000)
    monkeypatch.setattr(gzip_points, "_FAR", 3 * CHUNK)
    monkeypatch.setattr(points_ahead, "_READ", 3000)
    monkeypatch.setattr(points_ahead, "_BEYOND", CHUNK)


def opened(stream: Stream) -> GzipPoints:
    return GzipPoints(stream, BundleError, CHUNK)


def slow(*_: object) -> None:
    """Make no point ahead."""


def by_indexed_gzip(data: bytes) -> list[Point]:
    file = indexed_gzip.IndexedGzipFile(fileobj=io.BytesIO(data), spacing=CHUNK)
    file.build_full_index()
    exported = io.BytesIO()
    file.export_index(fileobj=exported)
    index = Index(exported.getvalue())
    points = index.points.copy()
    assert b"".join(index.drained()) == exported.getvalue()
    return points


@pytest.mark.parametrize("library", [final_block.load, final_block._libz])  # noqa: SLF001
@pytest.mark.parametrize("data", [WHOLE, zipped(CONTENT, "a name"), zipped(CONTENT, level=0)])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_the_points_are_the_same(
    library: Callable[[], final_block.Zlib],
    data: bytes,
    piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(final_block, "load", library)
    points = by_indexed_gzip(data)
    for start in (None, *points[1:5]):
        at = start.packed if start else 0
        maker = PointMaker(CHUNK, start, data[at - 1 : at])
        for begin in range(at, len(data), piece):
            maker.feed(data[begin : begin + piece])
        assert (maker.failed, maker.ended, maker.position) == (False, True, len(CONTENT))
        assert len(maker.made) > 4
        first = points.index(start) + 1 if start else 0
        assert maker.made[: len(points) - first] == points[first:][: len(maker.made)]
    assert {point.bits for point in points} != {0} or data == zipped(CONTENT, level=0)


@pytest.mark.parametrize("offset", [0, 5 * CHUNK, 12 * CHUNK + 7, len(CONTENT) - 10])
@pytest.mark.parametrize("data", [WHOLE, zipped(CONTENT, "a name"), WHOLE + zipped(b"x" * 5000)])
def test_what_is_read_is_the_content(data: bytes, offset: int) -> None:
    content = gzip.decompress(data)
    points = opened(Stream(data))
    for at in (offset, 3, len(content) - 5000, offset):
        assert points.read(at, 3000) == content[at : at + 3000]
    kept = points.grown()
    assert kept
    again = GzipPoints(Stream(data), BundleError, CHUNK, index=kept)
    for at in range(0, len(content), 1000):
        assert again.read(at, 1000) == content[at : at + 1000]


def outcome(points: GzipPoints, offset: int) -> bytes | str:
    try:
        return points.read(offset, 100)
    except BundleError as error:
        return str(error)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGED = [
    *(changed(WHOLE, at) for at in (1, 3, 10, len(WHOLE) // 2, len(WHOLE) - 10)),
    *(changed(WHOLE, len(WHOLE) - at) for at in (1, 5, 8)),
    *(WHOLE[:size] for size in (30, len(WHOLE) // 2, len(WHOLE) - 8, len(WHOLE) - 1)),
    WHOLE + b"x" * 100,
    WHOLE + bytes(100),
]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_of_a_damaged_stream_the_same_is_said(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = [len(CONTENT) - 100, 11 * CHUNK, 0, len(CONTENT) + 50]
    made: list[Any] = []
    for extended in (points_ahead.extended, slow):
        monkeypatch.setattr(points_ahead, "extended", extended)
        points = opened(Stream(DAMAGED[number]))
        made.append([outcome(points, offset) for offset in offsets])
    assert made[0] == made[1]


def test_a_stream_that_cannot_be_read_further_on(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = len(WHOLE) * 2 // 3
    points = opened(Stream(WHOLE, broken))
    assert outcome(points, len(CONTENT) - 100) == "it cannot be read there"
    assert points.read(10 * CHUNK, 100) == CONTENT[10 * CHUNK : 10 * CHUNK + 100]
    monkeypatch.setattr(points_ahead, "extended", slow)
    assert points.read(5 * CHUNK, 100) == CONTENT[5 * CHUNK : 5 * CHUNK + 100]


@pytest.mark.parametrize(
    "place",
    [(len(WHOLE) + 1, 12 * CHUNK), (2470743590, 12 * CHUNK), (0, 12 * CHUNK), (len(WHOLE), 1)],
)
def test_points_that_the_stream_cannot_have_are_left_alone(place: tuple[int, int]) -> None:
    """Such as `indexed_gzip` makes of a damaged one now and then: memory that nobody has set."""
    points = opened(Stream(WHOLE))
    points.read(10 * CHUNK, 100)
    index = Index(points.grown() or b"")
    assert points_ahead.extended(b"".join(index.drained()), Stream(WHOLE), 1000, slow)
    index = Index(points.grown() or b"")
    index.points[-1] = replace(index.points[-1], packed=place[0], plain=place[1])
    assert points_ahead.extended(b"".join(index.drained()), Stream(WHOLE), 1000, slow) is None


def test_an_index_of_a_version_to_come_is_left_alone() -> None:
    assert points_ahead.extended(b"GZIDX\x02\x00", Stream(WHOLE), 1000, slow) is None
    assert points_ahead.extended(b"GZIDX\x01\x00", Stream(WHOLE), 1000, slow) is None
