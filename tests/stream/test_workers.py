"""Workers: what is made in order, and the room that blocks under way have."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from bundlefs.base.room import Room
from bundlefs.base.threads import PATIENCE_SECONDS
from bundlefs.base.workers import Workers
from tests.stream.engine import HANG

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
