"""How large the bundle of an image will be, and how long it takes, by samples of it.

Three steps, each on fewer bytes than the one before, since each costs more:

1. A few KiB of up to 2,048 blocks tell how well each compresses: that sorts them into classes.
2. Blocks of each class are compressed at level 1 as the bundle has them.
3. Of those, some are compressed at level 6, and pieces of these at level 9: how much smaller a
   block becomes than at the level before differs little from one to another.

Where each block of a small image is compressed, the size is exact. Else the range is 3 standard
errors to either side, and a little more for what samples do not show. [Cochran, Sampling
Techniques, 12: double sampling] The picks are the same each time, so the answer is.

One thread calls this. It takes about two seconds, however large the image is.
"""

import hashlib
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bundlefs.base.progress import Wait
from bundlefs.base.spans import Span, ceil_div
from bundlefs.base.workers import default_jobs
from bundlefs.codec.deflate import BLOCK_SIZE, GZIP_HEADER, codec_for, gzip_trailer
from bundlefs.codec.tar import FromImage, TarLayout, layout
from bundlefs.image.source import Source

LEVELS = (1, 6, 9)

_PROBES, _PROBE = 2048, 4096
_BLOCKS, _FEWEST = 160, 8
_OF_THOSE, _PIECES = 24, 12
_EXACT = 4
"""Blocks of an image so small that it is compressed whole at level 9."""

_PIECE = BLOCK_SIZE // 4
_ERRORS = 3.0
_UNSEEN = {1: 0.005, 6: 0.01, 9: 0.025}
"""What is added to the range, as a share: a few samples may be alike by chance."""

_CLASSES = (0.25, 0.6, 0.9)
_CBC = 16
_MTIME = 1_700_000_000
_HEADER = 48.0
_HEADERS_SHARE = 0.002
"""How much the time in the tar header, which is that of the bundle, may change: bytes, and a share.

At level 9 another first match leads to other ones behind it.
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A bundle at one level: bytes of all parts, between which sizes they lie, and seconds.

    Attributes:
        level: of compression.
        size: the likeliest size.
        least: it is hardly smaller.
        most: it is hardly larger.
        seconds: roughly, on this machine with nothing else to do and quick storage.
        exact: whether all of the image was compressed; the time in the tar header is what is left.
    """

    level: int
    size: int
    least: int
    most: int
    seconds: float
    exact: bool


@dataclass(slots=True)
class _Sample:
    """A block that was compressed: how many it stands for, sizes and seconds by level."""

    number: int
    weight: float
    data: bytes = field(repr=False)
    sizes: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def compress(self, level: int) -> None:
        codec, start = codec_for(level), time.thread_time()
        self.sizes[level] = len(codec.compress(self.data))
        # Zeros are compressed once.
        self.seconds[level] = time.thread_time() - start if any(self.data) else 0.0


@dataclass(frozen=True, slots=True)
class _Total:
    """Bytes of the deflated stream, its variance, and seconds of one processor."""

    size: float
    variance: float
    seconds: float
    exact: bool


def estimate(image: Source, extents: Sequence[Span]) -> tuple[Estimate, ...]:
    """Estimate the bundle of an image for each of `LEVELS`.

    Raises:
        BundlefsError: the image was changed, or does not unpack.
        OSError: a read failed.
    """
    laid_out = layout("image", image.size, _MTIME, extents)
    # A gzip file is unpacked once more on the way, which may take long.
    with Wait(str(image.path), "taking samples", laid_out.size) as wait:
        stream = Stream(image, laid_out, wait.reached)
        samples = _sampled(stream)
    for sample in samples:
        sample.compress(1)
    start = time.thread_time()
    for sample in samples:
        hashlib.sha1(sample.data, usedforsecurity=False)
    serial = stream.blocks * (time.thread_time() - start) / len(samples)
    first = _first(stream, samples)
    second = _second(stream, samples, first)
    third = _third(stream, samples, second)
    totals = zip(LEVELS, (first, second, third), strict=True)
    return tuple(_estimate(level, total, serial, stream) for level, total in totals)


def _estimate(level: int, total: _Total, serial: float, stream: "Stream") -> Estimate:
    spread = _ERRORS * math.sqrt(total.variance) + _UNSEEN[level] * total.size
    if total.exact:
        spread = _HEADER + _HEADERS_SHARE * total.size
    least, most = max(total.size - spread, stream.blocks), total.size + spread
    size, least, most = (_sealed(round(each)) for each in (total.size, least, most))
    seconds = total.seconds / default_jobs() + serial
    return Estimate(level, size, least, most, round(seconds, 3), total.exact)


def _sealed(deflated: int) -> int:
    """Return the bytes of all parts: the gzip member, padded for CBC, which always adds some."""
    size = len(GZIP_HEADER) + deflated + len(gzip_trailer(0, 0))
    return (size // _CBC + 1) * _CBC


class Stream:
    """The blocks of the tar stream that the bundle will have."""

    def __init__(
        self, image: Source, laid_out: TarLayout, reached: Callable[[int], None] | None = None
    ) -> None:
        self._image = image
        self._layout = laid_out
        self._reached = reached
        self.blocks = ceil_div(laid_out.size, BLOCK_SIZE)

    def read(self, number: int, start: int = 0, length: int | None = None) -> bytes:
        """Return a block, or some bytes of it."""
        at = number * BLOCK_SIZE + start
        if self._reached:
            self._reached(at)
        pieces = []
        for piece in self._layout.pieces(Span(at, at + (length or BLOCK_SIZE))):
            if isinstance(piece, FromImage):
                pieces.append(self._image.read(piece.span.start, piece.length))
            else:
                pieces.append(piece.data)
        return b"".join(pieces)


def _sampled(stream: Stream) -> list[_Sample]:
    """Return the blocks to compress at level 1, in order: all, or some of each class."""
    if stream.blocks <= _BLOCKS:
        return [_Sample(number, 1, stream.read(number)) for number in range(stream.blocks)]
    chance = random.Random(stream.blocks)  # noqa: S311  # the same each time is what is wanted
    picked: list[tuple[int, float]] = []
    classes = _classes(stream, chance)
    probed = sum(map(len, classes))
    for numbers in classes:
        count = min(len(numbers), max(_FEWEST, round(_BLOCKS * len(numbers) / probed)))
        stands_for = stream.blocks * len(numbers) / probed
        picked += [(number, stands_for / count) for number in _spread(numbers, count, chance)]
    return [_Sample(number, weight, stream.read(number)) for number, weight in sorted(picked)]


def _classes(stream: Stream, chance: random.Random) -> list[list[int]]:
    """Return numbers of blocks by how well a few KiB of each compress; no class is empty."""
    numbers = _spread(range(stream.blocks), min(stream.blocks, _PROBES), chance)
    found: dict[int, list[int]] = {}
    for number in numbers:
        data = stream.read(number, chance.randrange(BLOCK_SIZE // _PROBE) * _PROBE, _PROBE)
        ratio = len(codec_for(1).compress(data)) / len(data) if any(data) else -1.0
        kind = -1 if ratio < 0 else sum(ratio > edge for edge in _CLASSES)
        found.setdefault(kind, []).append(number)
    return [found[kind] for kind in sorted(found)]


def _spread(numbers: Sequence[int], count: int, chance: random.Random) -> list[int]:
    """Return one of each of `count` runs of the numbers."""
    cuts = [len(numbers) * step // count for step in range(count + 1)]
    return [numbers[chance.randrange(a, b)] for a, b in itertools.pairwise(cuts)]


def _first(stream: Stream, samples: list[_Sample]) -> _Total:
    """Level 1: the sum over classes; blocks of one weight are of one class."""
    size = sum(one.weight * one.sizes[1] for one in samples)
    seconds = sum(one.weight * one.seconds[1] for one in samples)
    exact = len(samples) == stream.blocks
    if exact:
        return _Total(size, 0.0, seconds, exact)
    mean = size / stream.blocks
    variance = 0.0
    for weight in {one.weight for one in samples}:
        sizes = [one.sizes[1] for one in samples if one.weight == weight]
        stands_for = weight * len(sizes)
        inside = _variance([float(each) for each in sizes])
        variance += stands_for**2 * inside * (1 - 1 / weight) / len(sizes)
        # How large the class is was sampled as well.
        if stream.blocks > _PROBES:
            between = sum(sizes) / len(sizes) - mean
            variance += stream.blocks / _PROBES * stands_for * between**2
    return _Total(size, variance, seconds, exact)


def _variance(values: Sequence[float]) -> float:
    """Return the variance, and more of it where a few values are all that tells it [Student]."""
    count = len(values)
    if count < 2:  # noqa: PLR2004  # one tells nothing
        return 0.0
    mean = sum(values) / count
    return sum((value - mean) ** 2 for value in values) / max(count - 3, 1)


def _second(stream: Stream, samples: list[_Sample], first: _Total) -> _Total:
    """Level 6: by how much smaller it is than level 1 in some blocks of every kind."""
    some = _of_every_size(samples, 1, _OF_THOSE)
    for one in some:
        one.compress(6)
    exact = len(some) == stream.blocks
    return _by_ratio(stream.blocks, some, (1, 6), first, exact=exact)


def _third(stream: Stream, samples: list[_Sample], second: _Total) -> _Total:
    """Level 9: likewise, by pieces of blocks, since it is slow."""
    some = _of_every_size([one for one in samples if 6 in one.sizes], 6, _PIECES)  # noqa: PLR2004  # a level
    if stream.blocks <= _EXACT:
        for one in some:
            one.compress(9)
        return _by_ratio(stream.blocks, some, (6, 9), second, exact=True)
    chance = random.Random(stream.blocks + 1)  # noqa: S311  # the same each time
    pieces = []
    for one in some:
        start = chance.randrange(max(ceil_div(len(one.data), _PIECE), 1)) * _PIECE
        piece = _Sample(one.number, one.weight, one.data[start : start + _PIECE])
        for level in (6, 9):
            piece.compress(level)
        pieces.append(piece)
    total = ceil_div(stream.blocks * BLOCK_SIZE, _PIECE)
    return _by_ratio(total, pieces, (6, 9), second, exact=False)


def _of_every_size(samples: list[_Sample], level: int, count: int) -> list[_Sample]:
    """Return some of the samples, from the smallest at a level to the largest."""
    ordered = sorted(samples, key=lambda one: (one.sizes[level], one.number))
    if len(ordered) <= count:
        return ordered
    return [ordered[(2 * step + 1) * len(ordered) // (2 * count)] for step in range(count)]


def _by_ratio(
    units: int, some: list[_Sample], levels: tuple[int, int], before: _Total, *, exact: bool
) -> _Total:
    """Return the total at the second of two levels, by the ratio to the first in samples."""
    _, high = levels
    if exact:
        size = float(sum(one.sizes[high] for one in some))
        return _Total(size, 0.0, sum(one.seconds[high] for one in some), exact)
    sizes = [_weighted(some, [one.sizes[level] for one in some]) for level in levels]
    seconds = [_weighted(some, [one.seconds[level] for one in some]) for level in levels]
    ratio = sum(sizes[1]) / sum(sizes[0])
    slower = sum(seconds[1]) / (sum(seconds[0]) or 1.0)
    errors = [after - ratio * first for first, after in zip(*sizes, strict=True)]
    variance = units**2 * _variance(errors) * (1 - len(some) / units) / len(some)
    return _Total(
        before.size * ratio, before.variance * ratio**2 + variance, before.seconds * slower, exact
    )


def _weighted(some: list[_Sample], values: Sequence[float]) -> list[float]:
    """Return the values, each as heavy as what its block stands for; one is on average."""
    mean = sum(one.weight for one in some) / len(some)
    return [value * one.weight / mean for one, value in zip(some, values, strict=True)]
