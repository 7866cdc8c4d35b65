"""Spans against the set of the offsets they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.spans import Span, ceil_div, split


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = draw(st.integers(0, 40))
    return Span(start, start + draw(st.integers(0, 40)))


def offsets(span: Span) -> list[int]:
    return list(range(span.start, span.stop))


@given(spans())
def test_length_counts_the_offsets(span: Span) -> None:
    assert span.length == len(offsets(span))


@given(spans(), spans())
def test_clip_is_the_intersection(one: Span, other: Span) -> None:
    clipped = one.clip(other)
    assert offsets(clipped) == sorted(set(offsets(one)) & set(offsets(other)))
    assert clipped.length >= 0


@given(spans(), st.integers(0, 9))
def test_shift_moves_every_offset(span: Span, distance: int) -> None:
    assert offsets(span.shift(distance)) == [offset + distance for offset in offsets(span)]


@given(st.integers(0, 10_000), st.integers(1, 600))
def test_ceil_div_is_the_least_number_of_units_that_holds(dividend: int, divisor: int) -> None:
    units = ceil_div(dividend, divisor)
    assert units * divisor >= dividend > (units - 1) * divisor


@given(spans(), st.integers(1, 12))
def test_split_covers_the_span_in_order_one_part_for_each_unit(span: Span, unit: int) -> None:
    parts = list(split(span, unit))
    assert [
        index * unit + offset for index, within in parts for offset in offsets(within)
    ] == offsets(span)
    assert all(0 <= within.start < within.stop <= unit for _, within in parts)
    assert len({index for index, _ in parts}) == len(parts)
