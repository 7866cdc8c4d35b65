"""Frontier and sealed stream at every boundary, undone by `tests.reference`."""

import hashlib
import threading
from concurrent.futures import Future
from functools import partial

import pytest

from bundlefs.base.errors import ClosedError, ImageChangedError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.bundling import store
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.codec.deflate import BLOCK_SIZE, codec_for
from bundlefs.state.index import PART_SIZE, Index
from tests import reference
from tests.stream.engine import HANG, SECRET, in_threads
from tests.stream.scenes import MIB, NOISE, Source, scene, stored


def digests(parts: list[bytes]) -> list[str]:
    return [hashlib.sha1(part).hexdigest() for part in parts]


# --- the bytes ---


def size_that_seals_to(wanted: int) -> int:
    """Give the size of a stream that is `wanted` bytes long when it is stored and sealed."""
    return next(size for size in range(wanted, 0, -1) if stored(size) == wanted)


BLOCK_GRID = [1, 2, 15, 16, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE]
SEALED_GRID = [PART_SIZE - 16, PART_SIZE, PART_SIZE + 16, 2 * PART_SIZE - 16, 2 * PART_SIZE]


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("size", BLOCK_GRID)
def test_sizes_around_a_block(size: int, level: int) -> None:
    check_size(size, level)


@pytest.mark.parametrize("sealed", SEALED_GRID)
def test_sizes_around_a_part(sealed: int) -> None:
    parts = check_size(size_that_seals_to(sealed), 0)
    assert sum(map(len, parts)) == sealed
    assert len(parts) == ceil_div(sealed, PART_SIZE)


def check_size(size: int, level: int) -> list[bytes]:
    """Seal `size` bytes and undo it; gives the parts."""
    data = NOISE[:size]
    with scene(Source(data), codec=codec_for(level)) as made:
        made.make()
        sealed = made.whole()
        parts = reference.cut(sealed)
        totals = made.index.totals
        assert totals is not None
        assert (totals.sealed_size, totals.digest) == (len(sealed), hashlib.sha1(data).hexdigest())
        assert made.index.part_digests == digests(parts)
        assert reference.unbundle(parts, SECRET.key, SECRET.iv) == data
        made.forget()
        assert made.whole() == sealed
    return parts


def test_the_end_can_be_read_in_any_piece() -> None:
    data = NOISE[: 2 * MIB + 5]
    with scene(Source(data)) as made:
        made.make()
        sealed = made.whole()
        for start in range(len(sealed) - 70, len(sealed)):
            for stop in (start + 1, len(sealed)):
                made.forget()
                assert made.stream.read(Span(start, stop)) == sealed[start:stop]


# --- the frontier ---


def test_a_target_is_reached_and_not_left_far_behind() -> None:
    source = Source(NOISE)
    with scene(source) as made:
        for target in (1, MIB, 5 * MIB + 1, PART_SIZE):
            made.make(target)
            wait_until_idle(made.frontier)
            assert made.index.position >= target
            # The blocks under way, two for each job and two more, are sealed and end it.
            assert made.index.blocks <= made.index.block_at(target - 1) + 2 * 2 + 2
            assert source.farthest == made.index.blocks * BLOCK_SIZE


def wait_until_idle(frontier: Frontier) -> None:
    """Wait for the sealing lane to stop: it answers first, and stops then."""
    for _ in range(HANG * 1000):
        if not frontier.running:
            return
        threading.Event().wait(0.001)
    raise AssertionError("the frontier moves on though nobody asked")


def test_what_is_asked_for_is_told_in_the_order_of_the_stream() -> None:
    source = Source(NOISE, gated_from=0)
    targets = [9 * MIB, 3, END, 5 * MIB, 7 * MIB, 4 * MIB, 1, 2]
    told: list[int] = []
    with scene(source) as made:
        futures = [made.frontier.when(target) for target in targets]
        for target, future in zip(targets, futures, strict=True):

            def tell(_: Future[None], target: int = target) -> None:
                told.append(target)

            future.add_done_callback(tell)
        assert told == []
        source.gate.set()
        for future in futures:
            future.result(HANG)
    assert told == sorted(targets)


def test_a_question_behind_the_frontier_is_answered_at_once() -> None:
    source = Source(NOISE, gated_from=8 * MIB)
    with scene(source) as made:
        made.make(3 * MIB)
        far = made.frontier.when(END)
        for target in (0, 1, 3 * MIB, made.index.position):
            assert made.frontier.when(target).done()
        assert not far.done()


def test_it_can_be_asked_again_and_again() -> None:
    with scene(Source(NOISE)) as made:
        for target in range(0, 15 * MIB, 256 << 10):
            made.make(target)
            assert made.index.position >= target
        assert made.plan.maker.made <= made.index.blocks + 6 < made.plan.maker.blocks


def test_many_threads_ask_at_once() -> None:
    with scene(Source(NOISE)) as made:
        targets = [n * 7919 * 257 % (25 * MIB) for n in range(200)]
        in_threads(16, [partial(made.make, target) for target in targets])
        made.make()
        assert reference.unbundle(reference.cut(made.whole()), SECRET.key, SECRET.iv) == NOISE
        made.forget()
        assert made.plan.maker.made == made.plan.maker.blocks


def test_the_time_counts_while_it_moves() -> None:
    with scene(Source(NOISE)) as made:
        assert made.frontier.seconds == 0
        made.make(5 * MIB)
        wait_until_idle(made.frontier)
        taken = made.frontier.seconds
        assert taken > 0
        threading.Event().wait(0.05)
        assert made.frontier.seconds == taken


def test_the_time_does_not_go_back_when_it_fails() -> None:
    source = Source(NOISE, gated_from=5 * MIB)
    with scene(source) as made:
        made.frontier.when(END)
        threading.Event().wait(0.05)
        before = made.frontier.seconds
        made.frontier.fail(ClosedError("over"))
        assert made.frontier.seconds >= before > 0


@pytest.mark.parametrize("blocks", [0, 1, 9, 10, 11, 23])
def test_a_pass_can_be_taken_up_from_a_dump(blocks: int) -> None:
    with scene(Source(NOISE)) as made:
        made.make(made.index.position + 1 if not blocks else 1)
        while made.index.blocks < blocks:
            made.make(made.index.position + 1)
            wait_until_idle(made.frontier)
        dump = made.index.dump()
        made.make()
        whole, totals, parts = made.whole(), made.index.totals, list(made.index.part_digests)
    index = Index(SECRET.iv)
    index.load(dump)
    with scene(Source(NOISE), index=index) as again:
        again.make()
        assert again.index.totals == totals
        assert again.index.part_digests == parts
        assert again.whole() == whole


def test_a_pass_is_not_taken_up_over_a_changed_source() -> None:
    with scene(Source(NOISE)) as made:
        made.make(5 * MIB)
        dump = made.index.dump()
    index = Index(SECRET.iv)
    index.load(dump)
    changed = NOISE[: 2 * MIB] + b"!" + NOISE[2 * MIB + 1 :]
    with scene(Source(changed), index=index) as again, pytest.raises(ImageChangedError):
        again.make()


# --- readers ---


def test_a_block_is_made_once_for_all_who_ask_at_once() -> None:
    source = Source(NOISE)
    with scene(source, jobs=4) as made:
        made.make()
        whole = made.whole()
        made.forget()
        before = made.plan.maker.made
        spans = [Span(5 * MIB + n, 6 * MIB - n) for n in range(16)]
        together = threading.Barrier(16)

        def read(span: Span) -> bytes:
            together.wait()
            return bytes(made.stream.read(span))

        found = in_threads(16, [partial(read, span) for span in spans])
        assert found == [whole[span.start : span.stop] for span in spans]
        first, last = made.index.block_at(5 * MIB), made.index.block_at(6 * MIB - 1)
        assert made.plan.maker.made - before == last - first + 1


def test_a_reader_in_order_has_its_part_made_ahead_and_no_other() -> None:
    with scene(Source(NOISE), jobs=2) as made:
        made.make()
        made.forget()
        before = made.plan.maker.made
        for start in range(0, PART_SIZE, 128 << 10):
            made.stream.read(Span(start, start + (128 << 10)))
        mine = made.index.block_at(PART_SIZE - 1) + 1
        assert made.plan.maker.made - before == mine
        assert [made.store.has(block) for block in range(mine + 1)] == [True] * mine + [False]


def test_a_fast_read_gives_all_or_nothing() -> None:
    with scene(Source(NOISE)) as made:
        made.make()
        whole = made.whole()
        made.forget()
        inner = made.index.block_span(4)
        assert made.stream.read_fast(inner) is None
        assert made.stream.read(inner) == whole[inner.start : inner.stop]
        found = made.stream.read_fast(inner)
        assert found is not None
        assert found == whole[inner.start : inner.stop]
        assert made.stream.read_fast(Span(inner.start - 1, inner.stop)) is None


def test_readers_are_served_while_the_frontier_waits() -> None:
    source = Source(NOISE, gated_from=12 * MIB)
    with scene(source, jobs=1) as made:
        made.make(4 * MIB)
        far = made.frontier.when(END)
        read = partial(made.stream.read, Span(0, 4 * MIB))
        assert [len(piece) for piece in in_threads(16, [read] * 16)] == [4 * MIB] * 16
        assert not far.done()


def test_a_store_that_forgets_at_once_costs_time_and_no_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "RECENT_SIZE", 0)
    with scene(Source(NOISE[: 5 * MIB])) as made:
        made.make()
        whole = made.whole()
        spans = [Span(n * 65537, n * 65537 + 200_000) for n in range(40)]
        found = in_threads(16, [partial(made.stream.read, span) for span in spans])
        assert found == [whole[span.start : span.stop] for span in spans]
    assert reference.unbundle([whole], SECRET.key, SECRET.iv) == NOISE[: 5 * MIB]
