"""The end of workers: what runs is waited for, and who waits for what never ran is told."""

import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial

import pytest

from bundlefs.base.lanes import Lane
from bundlefs.base.room import Room
from bundlefs.base.threads import NoMoreWorkError, Threads, asking_storage
from bundlefs.base.turns import MOST_TURNS as TURNS
from bundlefs.base.workers import Workers
from tests.stream.engine import HANG


def test_closing_ends_what_runs_and_cancels_what_waits() -> None:
    gate, running = threading.Event(), threading.Event()

    def block() -> bool:
        running.set()
        return gate.wait(HANG)

    workers = Workers(1)
    lane = workers.lane(10)
    first, second = lane.submit(block), lane.submit(lambda: 2)
    running.wait(HANG)
    closing = threading.Thread(target=workers.close)
    closing.start()
    with pytest.raises(CancelledError):
        second.result(HANG)
    assert not first.done()
    gate.set()
    closing.join(HANG)
    assert first.result(HANG)
    with pytest.raises(RuntimeError):
        lane.submit(lambda: 3)


def hold(begun: threading.Event, gate: threading.Event) -> bool:
    """Say that it has begun, and wait."""
    begun.set()
    return gate.wait(HANG)


def test_closing_tells_who_waits_for_what_never_ran() -> None:
    """Nobody else would: at the end of a program it stood still for ever."""
    gate, begun = threading.Event(), threading.Event()
    workers = Workers(1)
    running = workers.submit(partial(hold, begun, gate))
    assert begun.wait(HANG)
    first: Future[int] = Future()
    waiting = workers.after(first, str)
    first.set_result(1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(workers.close)
        with pytest.raises(NoMoreWorkError):
            waiting.result(HANG)
        assert not running.done()
        gate.set()
        assert closing.result(HANG)


def test_who_asks_is_told_as_soon_as_no_more_work_is_taken() -> None:
    gate, begun = threading.Event(), threading.Event()
    workers = Workers(1)
    running = workers.lane(1).submit(partial(hold, begun, gate))
    assert begun.wait(HANG)
    assert not workers.shutting.done()
    workers.shutting.add_done_callback(lambda _: gate.set())
    assert workers.close()
    assert running.result(HANG)
    workers.close()


def test_closing_drops_those_who_wait_for_a_turn() -> None:
    gate = threading.Event()
    called = threading.Event()
    workers = Workers(1)
    for _ in range(TURNS):
        workers.take_turns(lambda: not gate.wait(HANG))

    def late() -> bool:
        called.set()
        return False

    workers.take_turns(late)
    closing = threading.Thread(target=workers.close)
    closing.start()
    while workers.crowded:
        threading.Event().wait(0.001)
    gate.set()
    closing.join(HANG)
    assert not called.is_set()


def test_closing_abandons_who_asks_storage_that_hangs() -> None:
    gate, asked = threading.Event(), threading.Event()

    def ask() -> bool:
        with asking_storage():
            asked.set()
            return gate.wait(HANG)

    workers = Workers(1)
    hanging = workers.lane(1).submit(ask)
    assert asked.wait(HANG)
    begun = time.monotonic()
    assert not workers.close()
    assert time.monotonic() - begun < HANG / 2
    assert not hanging.done()
    gate.set()
    assert hanging.result(HANG)


def test_nobody_waits_for_room_when_it_is_closed() -> None:
    room = Room(1)
    room.fill(room.take())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(room.take)
        room.close()
        with pytest.raises(NoMoreWorkError):
            waiting.result(HANG)


def test_a_lane_tells_who_waits_for_what_never_ran() -> None:
    """Its call to a thread may be dropped before any of its own calls were begun."""
    gate, begun = threading.Event(), threading.Event()
    threads = Threads(1, "test")
    running = threads.submit(partial(hold, begun, gate))
    assert begun.wait(HANG)
    lane = Lane(threads, 1)
    waiting = [lane.submit(str) for _ in range(2)]
    threads.shut()
    for future in waiting:
        with pytest.raises(NoMoreWorkError):
            future.result(HANG)
    gate.set()
    assert running.result(HANG)
    assert threads.join()
