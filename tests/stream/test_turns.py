"""Turns: who makes something in order takes one after the other, and the window is shared."""

import threading
from concurrent.futures import Future
from functools import partial

import pytest

from bundlefs.base import workers as module
from bundlefs.base.turns import MOST_TURNS as TURNS
from bundlefs.base.workers import Workers
from tests.stream.engine import HANG


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
