"""The phases of a frontier, and which of them may follow which: the whole machine, in one table.

    phase      what holds in it                        next       what happens
    REST       all that is wanted is made,             MOVING     somebody wants more
               and nothing is under way
    MOVING     it has a turn, or waits for one         REST       all that is wanted is made
                                                       HELD_UP    storage does not answer
                                                       COMPLETE   the last block is sealed
    HELD_UP    its turn is given back, until           MOVING     storage answers, or gives up
               storage answers
    COMPLETE   all is made, and nothing is under way
    FAILED     it has an error, which stays

FAILED follows on any phase, itself included; nothing else follows on it. A frontier begins at
REST, or as COMPLETE if an earlier run has made all.

Concurrency: none here. Who owns a `Course` holds a lock when it enters a phase.
"""

import time
from enum import Enum

from bundlefs.base.errors import InconsistentError


class Phase(Enum):
    """Where a frontier is."""

    REST = "at rest"
    MOVING = "moving"
    HELD_UP = "held up"
    COMPLETE = "complete"
    FAILED = "failed"


NEXT = {
    Phase.REST: {Phase.MOVING, Phase.FAILED},
    Phase.MOVING: {Phase.REST, Phase.HELD_UP, Phase.COMPLETE, Phase.FAILED},
    Phase.HELD_UP: {Phase.MOVING, Phase.FAILED},
    Phase.COMPLETE: {Phase.FAILED},
    Phase.FAILED: {Phase.FAILED},
}
"""What may follow on each phase."""

_RUNNING = {Phase.MOVING, Phase.HELD_UP}


class Course:
    """The phase of one frontier, and for how long it has been running."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self._before = 0.0
        self._since = 0.0

    @property
    def running(self) -> bool:
        """Whether it is to make something."""
        return self.phase in _RUNNING

    @property
    def seconds(self) -> float:
        """For how long it has been running, without the pauses."""
        return self._before + (time.monotonic() - self._since if self.running else 0.0)

    def enter(self, phase: Phase) -> None:
        """Go on to a phase. There is no other way to get into one.

        Raises:
            InconsistentError: it cannot follow on this one.
        """
        if phase not in NEXT[self.phase]:
            raise InconsistentError(
                f"a frontier that is {self.phase.value} cannot be {phase.value} next"
            )
        if phase in _RUNNING and not self.running:
            self._since = time.monotonic()
        elif self.running and phase not in _RUNNING:
            self._before = self.seconds
        self.phase = phase
