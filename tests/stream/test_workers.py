"""Lanes keep the order and share threads; who makes something in order takes turns."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial

import pytest

from bundlefs.base import workers as module
from bundlefs.base.lanes import Lane
from bundlefs.base.room import Room
from bundlefs.base.threads import PATIENCE_SECONDS, NoMoreWorkError, Threads, asking_storage
from bundlefs.base.turns import MOST_TURNS as TURNS
from bundlefs.base.workers import Workers

HANG = 60


def lane_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("lane")}


def test_a_lane_keeps_the_order_and_runs_one_call_at_a_time() -> None:
    done: list[int] = []
    inside = threading.Lock()

    def call(number: int) -> None:
        assert inside.acquire(blocking=False), "two calls of one lane at a time"
        done.append(number)
        inside.release()

    with Workers(2) as workers:
        lane = workers.lane(1000)
        for number in range(1000):
            lane.do(partial(call, number))
        lane.finish()
    assert done == list(range(1000))


def test_a_thousand_lanes_that_rest_have_no_threads() -> None:
    with Workers(1) as workers:
        for number in range(1000):
            assert workers.lane(1).submit(partial(int, number)).result(HANG) == number
        # The thread of a lane answers before it is free for the next lane.
        assert len(lane_threads()) < 20


def test_lanes_that_wait_for_each_other_all_have_a_thread() -> None:
    together = threading.Barrier(50)
    with Workers(1) as workers:
        waiting = [workers.lane(1).submit(lambda: together.wait(HANG)) for _ in range(50)]
        assert sorted(future.result(HANG) for future in waiting) == list(range(50))


def test_an_error_comes_out_of_the_lane_and_the_lane_goes_on() -> None:
    with Workers(1) as workers:
        lane = workers.lane(1)
        with pytest.raises(ZeroDivisionError):
            lane.submit(lambda: 1 // 0).result(HANG)
        assert lane.submit(lambda: 7).result(HANG) == 7


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


# --- turns ---


def test_who_takes_turns_has_one_after_the_other() -> None:
    order: list[int] = []
    ended = [threading.Event() for _ in range(3)]

    def stint(owner: int) -> bool:
        order.append(owner)
        if order.count(owner) < 5:
            return True
        ended[owner].set()
        return False

    with Workers(1) as workers:
        hold, held = threading.Event(), threading.Event()

        def holding() -> bool:
            held.set()
            return not hold.wait(HANG)

        # All turns but one are taken, so that the three have it by themselves.
        for _ in range(TURNS - 1):
            workers.take_turns(holding)
        held.wait(HANG)
        gate = threading.Event()
        workers.take_turns(lambda: not gate.wait(HANG))
        for owner in range(3):
            workers.take_turns(partial(stint, owner))
        assert workers.crowded
        gate.set()
        assert all(event.wait(HANG) for event in ended)
        hold.set()
    assert order == [0, 1, 2] * 5


def test_so_many_have_a_turn_at_a_time_and_no_more() -> None:
    inside, most, lock = 0, 0, threading.Lock()
    done = threading.Semaphore(0)

    def stint() -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.01)
        with lock:
            inside -= 1
        done.release()
        return False

    with Workers(1) as workers:
        for _ in range(50):
            workers.take_turns(stint)
        assert all(done.acquire(timeout=HANG) for _ in range(50))
    assert most == TURNS


def test_the_window_is_shared_by_who_has_a_turn() -> None:
    met = threading.Barrier(3)
    windows: list[int] = []

    def stint() -> bool:
        met.wait(HANG)
        windows.append(workers.window)
        met.wait(HANG)
        return False

    with Workers(3) as workers:
        assert workers.window == 8
        for _ in range(3):
            workers.take_turns(stint)
        while len(windows) < 3:
            threading.Event().wait(0.001)
    assert windows == [2, 2, 2]


def test_little_memory_narrows_the_window_and_takes_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "blocks_in_memory", lambda: 9)
    with Workers(32) as workers:
        assert (workers.jobs, workers.window, workers.room.size) == (32, 9, 4)
    monkeypatch.setattr(module, "blocks_in_memory", lambda: 1000)
    monkeypatch.setattr(module, "default_jobs", lambda: 2)
    with Workers(32) as workers:
        assert (workers.jobs, workers.window) == (32, 10)
    monkeypatch.setattr(module, "blocks_in_memory", lambda: 2)
    with Workers(32) as workers:
        assert (workers.window, workers.room.size) == (2, 1)
        assert list(workers.in_order([lambda: 1, lambda: 2, lambda: 3])) == [1, 2, 3]


def test_everyone_has_a_block_under_way() -> None:
    with Workers(1) as workers:
        gate = threading.Event()
        for _ in range(TURNS):
            workers.take_turns(lambda: not gate.wait(HANG))
        assert workers.window == 1
        assert list(workers.in_order([lambda: 1, lambda: 2])) == [1, 2]
        gate.set()


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


# --- in order ---


def test_what_is_under_way_is_taken_without_beginning_more() -> None:
    calls: list[Callable[[], int]] = [lambda: 1] * 10
    with Workers(1) as workers:
        made = workers.in_order(calls)
        next(made)
        left = made.under_way
        assert [made.take() for _ in range(left)] == [1] * left
        assert made.under_way == 0
        assert len(list(made)) == 10 - 1 - left


def test_what_is_held_back_is_begun_anew_in_order() -> None:
    """A read that hangs is waited for with nothing begun behind it, which would take memory."""
    gate = threading.Event()
    read: list[int] = []

    def take_in(number: int) -> int:
        if not read:
            gate.wait(HANG)
        read.append(number)
        return number

    with Workers(3) as workers:
        lane = workers.lane(1000)

        def begin(number: int) -> Future[int]:
            return workers.after(lane.submit(partial(take_in, number)), lambda taken: 10 * taken)

        made = workers.begun_in_order(partial(begin, number) for number in range(20))
        made.begin()
        assert made.under_way == 8
        first = made.hold_back()
        assert made.under_way == 1
        assert not first.done()
        gate.set()
        assert list(made) == [10 * number for number in range(20)]
    assert read == list(range(20))


def test_what_cannot_be_called_off_is_not_begun_twice() -> None:
    begun: list[int] = []

    def begin(number: int) -> Future[int]:
        begun.append(number)
        return Future()

    with Workers(3) as workers:
        made = workers.begun_in_order(partial(begin, number) for number in range(20))
        made.begin()
        made.hold_back()
        assert made.under_way == 8
        made.begin()
    assert begun == list(range(8))


def test_who_waits_for_storage_gives_its_turn_back_until_it_answers() -> None:
    hanging: list[Future[None]] = [Future() for _ in range(TURNS + 1)]
    ended = threading.Semaphore(0)

    def stint(number: int) -> bool | Future[None]:
        if not hanging[number].done():
            return hanging[number]
        ended.release()
        return False

    with Workers(1) as workers:
        for number in range(TURNS + 1):
            workers.take_turns(partial(stint, number))
        healthy = threading.Event()

        def one() -> bool:
            healthy.set()
            return False

        workers.take_turns(one)
        assert healthy.wait(HANG)
        for future in hanging:
            future.set_result(None)
        assert all(ended.acquire(timeout=HANG) for _ in hanging)


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


# --- room ---


def test_room_is_for_blocks_and_not_for_reads_that_hang() -> None:
    room = Room(2)
    hanging = room.take(), room.take()
    # Neither has come within a second: they hold no memory, and nobody waits for them.
    filled = room.take(), room.take()
    for place in filled:
        room.fill(place)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(room.take)
        assert not wait([third], 2 * PATIENCE_SECONDS).done
        room.leave(filled[0])
        room.leave(third.result(HANG))
    for place in hanging:
        room.fill(place)
        room.leave(place)


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
