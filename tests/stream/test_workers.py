"""Lanes keep the order and share threads; the window is shared by who makes something in order."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial

import pytest

from bundlefs.workers import Workers

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


def begun(workers: Workers, calls: int) -> list[int]:
    """Tell how many calls are under way for each of three who share, after their first result."""
    counts = [0, 0, 0]

    def call(owner: int) -> None:
        counts[owner] += 1

    made = [workers.in_order([partial(call, owner)] * calls) for owner in range(3)]
    for iterator in made:
        next(iterator)
    return [iterator.under_way for iterator in made]


def test_the_window_is_shared() -> None:
    with Workers(3) as workers:
        assert workers.window == 8
        assert begun(workers, 100) == [7, 7, 7]
        with workers.sharing(), workers.sharing(), workers.sharing():
            assert workers.window == 2
            assert begun(workers, 100) == [1, 1, 1]
        assert workers.window == 8


def test_everyone_has_a_block_under_way() -> None:
    with Workers(1) as workers:
        shares = [workers.sharing() for _ in range(100)]
        for share in shares:
            share.__enter__()
        assert workers.window == 1
        assert list(workers.in_order([lambda: 1, lambda: 2])) == [1, 2]
        for share in shares:
            share.__exit__(None, None, None)


def test_what_is_under_way_is_taken_without_beginning_more() -> None:
    calls: list[Callable[[], int]] = [lambda: 1] * 10
    with Workers(1) as workers:
        made = workers.in_order(calls)
        next(made)
        left = made.under_way
        assert [made.take() for _ in range(left)] == [1] * left
        assert made.under_way == 0
        assert len(list(made)) == 10 - 1 - left
