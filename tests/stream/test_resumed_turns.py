"""A pass that is taken up again reads all that was sealed before, and shares its turn meanwhile."""

import threading

from bundlefs.base.errors import ClosedError
from bundlefs.base.turns import MOST_TURNS as TURNS
from bundlefs.base.workers import Workers
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.bundling.maker import Maker
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.store import BlockStore
from bundlefs.bundling.stream import SealedStream
from bundlefs.codec.deflate import codec_for
from bundlefs.state.index import Index
from tests.stream.engine import HANG, SECRET
from tests.stream.scenes import MIB, NOISE, Source, scene


def test_a_pass_that_is_taken_up_gives_others_their_turn() -> None:
    dumps = []
    with scene(Source(NOISE)) as made:
        made.make(14 * MIB)
        dumps.append(made.index.dump())
        made.make()
        last = made.index.dump()
    index = Index(SECRET.iv)
    index.load(dumps[0])
    assert index.totals is None
    source, gate, turns = Source(NOISE), threading.Event(), threading.Event()
    found: list[int] = []

    def other() -> bool:
        found.append(source.farthest)
        turns.set()
        return False

    plan = Plan(SECRET, index, Maker(source, codec_for(1)))
    with Workers(1) as workers:
        stream = SealedStream(plan, workers, BlockStore(0))
        frontier = Frontier(plan, workers, stream, lambda: None)
        # All turns but one are taken.
        for _ in range(TURNS - 1):
            workers.take_turns(lambda: not gate.wait(HANG))
        source.gated_from = 0
        ending = frontier.when(END)
        workers.take_turns(other)
        source.gate.set()
        assert turns.wait(HANG)
        ending.result(HANG)
        gate.set()
        frontier.fail(ClosedError("the test is over"))
    assert found[0] < 12 * MIB
    assert index.dump() == last
