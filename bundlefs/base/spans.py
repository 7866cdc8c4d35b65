"""Half-open byte ranges `[start, stop)`, so that off-by-one is a matter of this module alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The bytes from `start` up to but without `stop`; empty when they are equal."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        """Refuse what is no range: all that is counted from it would be wrong.

        Raises:
            ValueError: `stop` is before `start`.
        """
        if self.stop < self.start:
            raise ValueError(f"no span goes from {self.start} back to {self.stop}")

    @property
    def length(self) -> int:
        """Number of bytes, 0 or more."""
        return self.stop - self.start

    def clip(self, other: "Span") -> "Span":
        """Return the part of this span that lies in `other`; an empty span if they do not meet."""
        start = min(max(self.start, other.start), other.stop)
        return Span(start, max(start, min(self.stop, other.stop)))

    def shift(self, distance: int) -> "Span":
        """Return the same span `distance` bytes later."""
        return Span(self.start + distance, self.stop + distance)


def ceil_div(dividend: int, divisor: int) -> int:
    """Return how many units of `divisor` hold `dividend`."""
    return -(-dividend // divisor)


def split(span: Span, unit: int) -> Iterator[tuple[int, Span]]:
    """Cut `span` at multiples of `unit`: `(index of the unit, span within that unit)`."""
    for index in range(span.start // unit, ceil_div(span.stop, unit) if span.length else 0):
        base = index * unit
        yield index, span.clip(Span(base, base + unit)).shift(-base)


def joined(pieces: Sequence[bytes]) -> bytes:
    """Return the bytes of all pieces; a single piece is returned itself, and not copied."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def joined_views(pieces: Sequence[memoryview]) -> memoryview:
    """Return the bytes of all pieces, likewise."""
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
