"""The phases of a frontier follow on each other as the table says, and in no other way."""

import re
import time
from itertools import pairwise, product

import pytest

from bundlefs.base.errors import InconsistentError
from bundlefs.bundling import phases
from bundlefs.bundling.phases import NEXT, Course, Phase

REST, MOVING, HELD_UP, COMPLETE, FAILED = Phase


def to(phase: Phase) -> Course:
    """Return a course that has come to a phase in an allowed way."""
    ways: dict[Phase, list[Phase]] = {
        REST: [],
        MOVING: [MOVING],
        HELD_UP: [MOVING, HELD_UP],
        COMPLETE: [MOVING, COMPLETE],
        FAILED: [FAILED],
    }
    course = Course(REST)
    for each in ways[phase]:
        course.enter(each)
    return course


@pytest.mark.parametrize(("before", "after"), list(product(Phase, Phase)))
def test_each_transition_is_allowed_or_refused(before: Phase, after: Phase) -> None:
    course = to(before)
    assert course.phase is before
    if after in NEXT[before]:
        course.enter(after)
        assert course.phase is after
    else:
        with pytest.raises(InconsistentError, match=f"{before.value} cannot be {after.value}"):
            course.enter(after)
        assert course.phase is before


def test_the_table_in_the_head_is_the_one_that_the_code_follows() -> None:
    told: dict[Phase, set[Phase]] = {phase: {FAILED} for phase in Phase}
    before = REST
    for line in (phases.__doc__ or "").splitlines():
        if line.startswith("    ") and (names := re.findall(r"\b[A-Z_]{4,}\b", line)):
            before = Phase[names[0]] if line[4] != " " else before
            told[before] |= {Phase[name] for name in names if Phase[name] is not before}
    assert told == NEXT


def test_failure_is_for_good() -> None:
    assert all(FAILED in NEXT[phase] for phase in Phase)
    assert NEXT[FAILED] == {FAILED}


def test_every_phase_can_be_reached() -> None:
    assert {phase for after in NEXT.values() for phase in after} == set(Phase)


def test_it_runs_while_it_moves_or_is_held_up() -> None:
    assert [phase for phase in Phase if to(phase).running] == [MOVING, HELD_UP]


def test_seconds_count_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    course, found = Course(REST), []
    for before, after in pairwise([REST, MOVING, HELD_UP, MOVING, REST, MOVING, COMPLETE, FAILED]):
        assert course.phase is before
        now += 1
        course.enter(after)
        found.append(course.seconds)
    assert found == [0, 1, 2, 3, 3, 4, 4]
