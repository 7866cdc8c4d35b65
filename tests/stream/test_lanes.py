"""Lanes: each keeps its order, and all share threads."""

import threading
from functools import partial

import pytest

from bundlefs.base.workers import Workers
from tests.stream.engine import HANG


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
