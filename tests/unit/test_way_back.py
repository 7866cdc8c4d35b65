"""The steps from sealed parts to an image that need no file: against the dullest way to do each."""

import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.errors import BundleError
from bundlefs.base.holes import GRAIN, grains_with_data
from bundlefs.base.spans import Span
from bundlefs.codec.sparse_map import Extents
from bundlefs.unbundling.unseal import inflated

CONTENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=4)
CUTS = st.lists(st.integers(0, 300), max_size=6)
LAYOUTS = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 1200)), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return the data in pieces, some of them empty."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)] + [b""]


@given(CONTENTS, CUTS)
def test_members_are_joined_however_they_come_in_pieces(
    contents: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(gzip.compress(content) for content in contents)
    assert b"".join(inflated(iter(pieces(stream, cuts)))) == b"".join(contents)


@given(CONTENTS, CUTS, st.data())
def test_a_stream_that_is_cut_short_is_refused(
    contents: list[bytes], cuts: list[int], data: st.DataObject
) -> None:
    last = gzip.compress(contents[-1])
    stream = b"".join(gzip.compress(content) for content in contents[:-1])
    stream += last[: data.draw(st.integers(1 if stream else 0, len(last) - 1))]
    with pytest.raises(BundleError, match="the gzip stream ends too early"):
        list(inflated(iter(pieces(stream, cuts))))


@given(CUTS)
def test_nothing_else_may_stand_behind_a_member(cuts: list[int]) -> None:
    with pytest.raises(BundleError, match="the gzip stream is damaged"):
        list(inflated(iter(pieces(gzip.compress(b"image") + b"no gzip at all", cuts))))


@given(LAYOUTS, CUTS)
def test_what_a_piece_of_the_stream_holds_of_the_image(
    layout: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Every piece of a stream brings its own bytes of the image, and all of them bring all."""
    extents = Extents(20_000)
    stream, image = bytearray(b"h" * 512), bytearray(20_000)
    at = 0
    for number, (hole, length) in enumerate(layout, start=1):
        at += hole
        extents.add(at, length)
        image[at : at + length] = bytes([number]) * length
        stream += (bytes([number]) * length).ljust(-(-length // 512) * 512, b"p")
        at += length
    runs = extents.runs(512)
    found, start = bytearray(20_000), 0
    for piece in pieces(bytes(stream), [20 * cut for cut in cuts]):
        here = Span(start, start + len(piece))
        for run in runs.stored_in(here):
            assert run.image.length
            data = piece[run.stream_offset - start :][: run.image.length]
            assert len(data) == run.image.length
            found[run.image.start : run.image.stop] = data
        start = here.stop
    assert found == image


@given(st.lists(st.booleans(), max_size=4), st.sampled_from([b"", b"x", b"\0", bytes(GRAIN - 1)]))
def test_grains_of_zeros_are_left_out(full: list[bool], rest: bytes) -> None:
    grains = [bytes(GRAIN - 1) + b"x" if one else bytes(GRAIN) for one in full]
    data = b"".join(grains) + rest
    found = list(grains_with_data(memoryview(data)))
    copy = bytearray(len(data))
    for start, grain in found:
        copy[start : start + len(grain)] = grain
    assert copy == data
    assert len(found) == sum(full) + any(rest)
