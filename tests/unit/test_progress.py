"""When lines are written of what takes long, and what they say."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundlefs.base import progress
from bundlefs.base.progress import Due, Wait, pass_of, percent

MIB = 1 << 20


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(steps: int, seconds: float) -> list[int]:
    """Return at which hundredths lines are due, of what takes so long."""
    clock = Clock()
    due, told = Due(clock), []
    for step in range(steps + 1):
        clock.now = 1000.0 + seconds * step / steps
        if due.now(step, steps):
            told.append(100 * step // steps)
    return told


def test_what_is_soon_done_is_not_told() -> None:
    assert lines(1000, 4.9) == []


def test_a_line_when_it_begins_to_take_long_and_then_each_tenth() -> None:
    assert lines(1000, 200) == [2, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_no_more_than_a_line_each_ten_seconds() -> None:
    assert lines(1000, 30) == [16, 50, 83]


def test_a_line_each_minute_of_what_takes_very_long() -> None:
    told = lines(7200, 7200)
    assert 120 <= len(told) <= 130
    assert told[:3] == [0, 0, 1]


def test_lines_without_a_total(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO, progress.__name__)
    with Wait("standard input", "keeping it", None, Due(clock)) as wait:
        for done in range(3):
            clock.now += 5
            wait.reached(done * 100 * MIB)
        clock.now += 60
        wait.reached(7500 * MIB)
    assert caplog.messages == [
        "standard input: keeping it, 0 MiB so far, 0.0 MiB/s",
        "standard input: keeping it, 7500 MiB so far, 100.0 MiB/s",
    ]


def test_the_rate_is_of_what_was_gone_through(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO, progress.__name__)
    with Wait("disk", "first pass", 1000 * MIB, Due(clock)) as wait:
        wait.reached(500 * MIB)
        clock.now += 10
        wait.reached(600 * MIB)
    assert caplog.messages == ["disk: first pass, 60 % of 1000.0 MiB, 10.0 MiB/s"]


@pytest.fixture
def seen() -> Iterator[list[tuple[int, bool]]]:
    found: list[tuple[int, bool]] = []
    progress.observe(lambda wait: found.append((wait.done, wait.over)))
    yield found
    progress.observe(None)


def test_an_observer(seen: list[tuple[int, bool]]) -> None:
    path = Path("/disk")
    assert progress.of(path) is None
    with Wait(path, "unpacking", 10) as wait:
        wait.reached(3)
        assert progress.of(path) is wait
    assert progress.of(path) is None
    assert seen == [(3, False), (3, True)]


def test_an_observer_that_fails_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def broken(wait: Wait) -> None:
        asked.append(wait.done)
        raise OSError(5, "the terminal is gone")

    progress.observe(broken)
    with Wait("disk", "unpacking", 10) as wait:
        wait.reached(1)
        wait.reached(2)
    assert asked == [1]
    assert "progress is not shown any more" in caplog.text


@pytest.mark.parametrize(
    ("status", "found", "shown"),
    [
        ({"phase": "indexing", "tar_bytes_done": 1, "tar_size": 4}, (1, 4), 25),
        ({"phase": "idle", "tar_bytes_done": 1, "tar_size": 4}, None, None),
        ({"phase": "unpacking", "pass_bytes_done": 1, "pass_bytes_total": 2}, (1, 2), 50),
        ({"phase": "unpacking", "pass_bytes_done": 0, "pass_bytes_total": 0}, None, None),
        ({"phase": "indexing"}, None, None),
    ],
)
def test_how_far_a_status_says_that_a_pass_is(
    status: dict[str, int], found: tuple[int, int] | None, shown: int | None
) -> None:
    assert (pass_of(status), percent(status)) == (found, shown)
