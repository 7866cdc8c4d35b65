"""The index against a model that looks at every offset, and under a reader's eyes."""

import sys
import threading
from dataclasses import dataclass
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.spans import Span
from bundlefs.codec.cbc import CbcState
from bundlefs.codec.deflate import GZIP_HEADER
from bundlefs.state.index import PART_SIZE, Index, Totals, part_count

IV = bytes(16)
TRAILER = 10
# Codecs give 5 bytes and more; small ones put several blocks into one unit of 16.
SIZES = st.lists(st.integers(5, 60), min_size=1, max_size=30)


def pad(size: int) -> int:
    """Give the size of `size` bytes with PKCS#7 padding."""
    return (size // 16 + 1) * 16


def state_at(boundary: int, offset: int) -> CbcState:
    """Give a state that is like no other: the index must not mix them up."""
    return CbcState(boundary.to_bytes(16), (b"%015d" % boundary)[: offset % 16])


@dataclass(frozen=True, slots=True)
class Model:
    """Deflated sizes of all blocks, in order."""

    sizes: list[int]

    @property
    def offsets(self) -> list[int]:
        """Gzip offsets of the boundaries."""
        return list(accumulate(self.sizes, initial=len(GZIP_HEADER)))

    @property
    def totals(self) -> Totals:
        return Totals(crc=7, digest="d" * 40, sealed_size=pad(self.offsets[-1] + TRAILER))

    def fill(self, index: Index, upto: int) -> None:
        offsets = self.offsets
        for block in range(index.blocks, upto):
            state = state_at(block + 1, offsets[block + 1])
            if block + 1 < len(self.sizes):
                index.append(self.sizes[block], state, block)
            else:
                index.append_last(self.sizes[block], state, block, self.totals)

    def index(self, upto: int | None = None) -> Index:
        index = Index(IV)
        self.fill(index, len(self.sizes) if upto is None else upto)
        return index

    def owner(self, offset: int) -> int:
        """Give the block that the 16 bytes around a sealed offset were sealed with.

        A unit is sealed with the block that fills it; the last units come with the last block.
        """
        unit_end = offset // 16 * 16 + 16
        filled_by = [block for block, end in enumerate(self.offsets[1:]) if end >= unit_end]
        return filled_by[0] if filled_by else len(self.sizes) - 1


MODELS = SIZES.map(Model)


@given(MODELS)
def test_every_offset_has_its_block(model: Model) -> None:
    index = model.index()
    for offset in range(model.totals.sealed_size):
        block = index.block_at(offset)
        assert block == model.owner(offset)
        assert index.block_span(block).start <= offset < index.block_span(block).stop


@given(MODELS, st.data())
def test_spans_tile_the_stream(model: Model, data: st.DataObject) -> None:
    upto = data.draw(st.integers(0, len(model.sizes)))
    index = model.index(upto)
    spans = [index.block_span(block) for block in range(upto)]
    assert all(one.stop == next_one.start for one, next_one in pairwise(spans))
    assert (spans[0].start, spans[-1].stop) == (0, index.position) if spans else not index.position


@given(MODELS, st.data())
def test_what_is_sealed_stays_as_it_was_seen(model: Model, data: st.DataObject) -> None:
    upto = data.draw(st.integers(1, len(model.sizes)))
    index = model.index(upto)
    spans = [index.block_span(block) for block in range(upto)]
    owners = [index.block_at(offset) for offset in range(index.position)]
    model.fill(index, len(model.sizes))
    assert [index.block_span(block) for block in range(upto)] == spans
    assert [index.block_at(offset) for offset in range(len(owners))] == owners


@given(MODELS)
def test_states_and_checksums_come_back(model: Model) -> None:
    index = model.index()
    assert index.state(0) == CbcState(IV, GZIP_HEADER)
    for boundary, offset in list(enumerate(model.offsets))[1:]:
        assert index.state(boundary) == state_at(boundary, offset)
        assert index.crc(boundary - 1) == boundary - 1


@given(MODELS)
def test_totals_show_at_the_end_and_no_sooner(model: Model) -> None:
    index = Index(IV)
    for upto in range(len(model.sizes)):
        model.fill(index, upto)
        assert index.totals is None
        assert index.position == (len(GZIP_HEADER) + sum(model.sizes[:upto])) // 16 * 16
    model.fill(index, len(model.sizes))
    assert index.totals == model.totals
    assert index.position == model.totals.sealed_size


def test_a_reader_never_sees_half_a_boundary() -> None:
    model = Model([5 + n * 7 % 90 for n in range(30_000)])
    index, ended = Index(IV), threading.Event()
    faults: list[str] = []

    def watch() -> None:
        before = 0
        while not ended.is_set():
            blocks, position = index.blocks, index.position
            if position < before:
                faults.append(f"the position went back from {before} to {position}")
            if blocks and index.state(blocks).chain != blocks.to_bytes(16):
                faults.append(f"boundary {blocks} has the state of another")
            if blocks and index.crc(blocks - 1) != blocks - 1:
                faults.append(f"block {blocks - 1} has the checksum of another")
            if index.totals and index.blocks != len(model.sizes):
                faults.append("totals before the end")
            before = position

    watcher = threading.Thread(target=watch)
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        watcher.start()
        model.fill(index, len(model.sizes))
    finally:
        sys.setswitchinterval(often)
        ended.set()
        watcher.join()
    assert faults == []


@given(MODELS, st.data())
def test_a_dump_is_the_index_at_that_time(model: Model, data: st.DataObject) -> None:
    upto = data.draw(st.integers(0, len(model.sizes)))
    dump = model.index(upto).dump()
    again = Index(b"another IV......")
    again.load(dump)
    assert dump.blocks == again.blocks == upto
    assert again.dump() == dump
    model.fill(again, len(model.sizes))
    assert again.dump() == model.index().dump()


def test_a_dump_shows_no_state() -> None:
    index = Index(b"IVIVIVIVIVIVIVIV")
    assert "IVIV" not in repr(index.dump())
    assert "IVIV" not in repr(index)


def test_an_exact_multiple_has_no_empty_part() -> None:
    counts = [part_count(size) for size in (0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1)]
    assert counts == [0, 1, 1, 1, 2]


def test_an_empty_index_knows_nothing() -> None:
    index = Index(IV)
    assert (index.blocks, index.position, index.totals) == (0, 0, None)
    assert index.dump().blocks == 0
    assert Span(0, 0).length == index.position
