"""What goes wrong in the stream: it is told to all, it stays, and no wrong byte gets out."""

from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from bundlefs.base.errors import BundlefsError, ClosedError, ImageChangedError, InconsistentError
from bundlefs.base.spans import Span
from bundlefs.bundling.frontier import END
from bundlefs.codec.deflate import BLOCK_SIZE, Codec, codec_for
from tests.stream.engine import HANG, in_threads
from tests.stream.scenes import MIB, NOISE, Source, scene, stored


def failures(futures: list[Future[None]]) -> list[BaseException | None]:
    return [future.exception(HANG) for future in futures]


def test_an_error_of_the_source_reaches_all_who_wait_or_come_later() -> None:
    source = Source(NOISE, gated_from=8 * MIB, fail_from=9 * MIB)
    with scene(source) as made:
        futures = [made.frontier.when(20 * MIB + n) for n in range(16)]
        behind = made.frontier.when(MIB)
        assert behind.exception(HANG) is None
        source.gate.set()
        assert failures(futures) == [source.error] * 16
        assert made.frontier.when(END).exception(HANG) is source.error
        # What lies behind is not trusted any more either.
        assert made.frontier.when(1).exception(HANG) is source.error
        assert made.index.blocks == 9
        assert not made.frontier.running


def test_the_error_stays_though_the_source_recovers() -> None:
    source = Source(NOISE, fail_from=9 * MIB)
    with scene(source) as made:
        assert made.frontier.when(END).exception(HANG) is source.error
        source.fail_from = 1 << 60
        assert made.frontier.when(END).exception(HANG) is source.error


def test_the_first_error_stays() -> None:
    with scene(Source(NOISE, gated_from=0)) as made:
        waiting = made.frontier.when(END)
        errors = [InconsistentError("one"), OSError("two")]
        for error in errors:
            made.frontier.fail(error)
        assert failures([waiting, made.frontier.when(0)]) == [errors[0]] * 2


def test_failing_wakes_who_waits_though_the_source_hangs() -> None:
    source = Source(NOISE, gated_from=0)
    with scene(source) as made:
        futures = [made.frontier.when(target) for target in (1, MIB, END)]
        error = ClosedError("the mount is ending")
        made.frontier.fail(error)
        assert failures(futures) == [error] * 3


def test_a_size_that_was_promised_must_come_true() -> None:
    data = NOISE[: 3 * MIB]
    with scene(Source(data), codec=codec_for(0), promised=stored(len(data))) as made:
        made.make()
    with scene(Source(data), codec=codec_for(1), promised=stored(len(data)) + 16) as made:
        error = made.frontier.when(END).exception(HANG)
        assert isinstance(error, InconsistentError)
        assert f"{stored(len(data)) + 16:,}" in str(error)
        assert made.index.totals is None


def change(source: Source, offset: int) -> None:
    data = bytearray(source.data)
    data[offset] ^= 1
    source.data = bytes(data)


@pytest.mark.parametrize("block", [0, 11, 23])
def test_bytes_that_changed_behind_the_frontier_are_not_handed_out(block: int) -> None:
    source = Source(NOISE)
    with scene(source) as made:
        made.make()
        whole = made.whole()
        made.forget()
        change(source, block * BLOCK_SIZE + 5)
        span = made.index.block_span(block)
        for _ in range(2):
            with pytest.raises(ImageChangedError, match=f"block {block}"):
                made.stream.read(Span(span.start, span.start + 1))
            assert made.stream.read_fast(span) is None
        other = made.index.block_span(5)
        assert made.stream.read(other) == whole[other.start : other.stop]


@dataclass(slots=True)
class Moody:
    """An encoder that is honest but does not give the same bytes every time it is asked.

    Both of its ways decode to the block.
    """

    encoders: list[int]
    name: str = "moody"
    libraries: str = "none"

    def __call__(self, block: bytes) -> bytes:
        """Deflate at the level of the moment."""
        return codec_for(self.encoders[0]).compress(block)


@pytest.mark.parametrize("size", [24 * MIB, 5 * MIB + 3, 7])
@pytest.mark.parametrize("levels", [(1, 2), (1, 6), (0, 1), (6, 7)])
def test_a_codec_that_changes_its_mind_is_found_out(size: int, levels: tuple[int, int]) -> None:
    text = (b"part manifest prefix extent " * (size // 28 + 1))[:size]
    first, second = (codec_for(level).compress(text[:MIB]) for level in levels)
    moody = Moody([levels[0]])
    with scene(Source(text), codec=Codec(1, "moody", "moody", moody)) as made:
        made.make()
        whole = made.whole()
        made.forget()
        moody.encoders[0] = levels[1]
        if first == second:
            assert made.whole() == whole
            return
        with pytest.raises(InconsistentError, match="block 0 "):
            made.whole()
        assert made.stream.read_fast(Span(0, 1)) is None


def test_who_waits_for_a_block_that_fails_hears_of_it() -> None:
    source = Source(NOISE)
    with scene(source, jobs=1) as made:
        made.make()
        made.forget()
        source.fail_from = 0

        def read() -> str:
            with pytest.raises(OSError, match="Remote I/O error"):
                made.stream.read(Span(0, 100))
            return "heard"

        assert in_threads(16, [read] * 16) == ["heard"] * 16


def test_a_codec_that_fails_ends_the_pass() -> None:
    def refuse(_: bytes) -> bytes:
        raise InconsistentError("a compressed block does not decode")

    class Refusing:
        name = libraries = "refusing"
        __call__ = staticmethod(refuse)

    with scene(Source(NOISE), codec=Codec(1, "refusing", "1", Refusing())) as made:
        error = made.frontier.when(END).exception(HANG)
        assert isinstance(error, BundlefsError)
        assert made.index.blocks == 0


def test_closing_the_workers_hangs_nobody() -> None:
    source = Source(NOISE, gated_from=6 * MIB)
    with scene(source) as made:
        futures = [made.frontier.when(target) for target in (20 * MIB, END)]
        made.frontier.fail(ClosedError("over"))
        source.gate.set()
    assert all(isinstance(error, ClosedError) for error in failures(futures))


def test_a_failed_stream_does_not_grow_with_each_question() -> None:
    with scene(Source(NOISE)) as made:
        made.frontier.fail(OSError(5, "Input/output error"))
        lengths = []
        for _ in range(3):
            error = made.frontier.when(END).exception(HANG)
            assert error is not None
            with pytest.raises(OSError, match="Input/output error"):
                made.frontier.when(END).result(HANG)
            trace, length = error.__traceback__, 0
            while trace is not None:
                trace, length = trace.tb_next, length + 1
            lengths.append(length)
        assert lengths[1] == lengths[2]
