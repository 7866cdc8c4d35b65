"""The frontier: how far the sealed stream has been made for the first time.

It moves forward only, block by block, as far as the farthest target that anyone has asked for;
blocks are made in parallel ahead of it. It leaves behind the index: boundaries, part digests, and
at the end the totals. `steps` says what is done for each block, and `phases` when it moves.

Concurrency: who has the turn takes the steps. Nobody waits for storage that does not answer: the
turn is given back until it does. `_lock` guards the phase, the target and who waits.
"""

import heapq
import itertools
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bundlefs.base.errors import BundlefsError, ClosedError
from bundlefs.base.futures import give, refuse
from bundlefs.base.threads import PATIENCE_SECONDS, asking_storage
from bundlefs.base.workers import Workers
from bundlefs.bundling.maker import MadeBlock
from bundlefs.bundling.phases import Course, Phase
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.sealer import SealedBlocks
from bundlefs.bundling.steps import Steps

log = logging.getLogger(__name__)

END = sys.maxsize
"""A target behind any stream: go on to the end."""

_STINT = 10
"""Blocks to be sealed before others have their turn."""


class Frontier:
    """Moves forward only, block by block, as far as the farthest target asked for.

    Attributes:
        error: why it has failed, if it has.

    Args:
        plan: of the bundle.
        workers: make the blocks, and give it turns.
        blocks: where sealed blocks go.
        progress: called after each block.
        begin: called before the first block is sealed.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        blocks: SealedBlocks,
        progress: Callable[[], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._index = plan.index
        self._workers = workers
        self._progress = progress
        self._begin = begin
        self._begun = False
        steps = Steps(plan, workers, blocks, self._seal)
        self._sealer = steps.sealer
        self._steps = workers.begun_in_order(steps.begins())
        self._lock = threading.Lock()
        self._course = Course(Phase.REST if plan.index.totals is None else Phase.COMPLETE)
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._target = 0
        self.error: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether it is on its way to a target."""
        return self._course.running

    @property
    def seconds(self) -> float:
        """For how long it has been moving, without the pauses."""
        return self._course.seconds

    # Who waits

    def when(self, target: int) -> Future[None]:
        """Ask for the sealed stream up to `target` (or its end); the future tells when it is made.

        The future holds the error if the bundle has failed or fails before.
        """
        future: Future[None] = Future()
        with self._lock:
            if self.error is not None:
                # It is raised many times over, and each time would add to its traceback.
                future.set_exception(self.error.with_traceback(None))
            elif self._reached(target):
                future.set_result(None)
            else:
                heapq.heappush(self._waiting, (target, next(self._order), future))
                self._target = max(self._target, target)
                self._move()
        return future

    def _reached(self, target: int) -> bool:
        return self._index.totals is not None or self._index.position >= target

    @property
    def _wanted(self) -> bool:
        return not self._reached(self._target)

    def _tell(self) -> None:
        reached = []
        with self._lock:
            while self._waiting and self._reached(self._waiting[0][0]):
                reached.append(heapq.heappop(self._waiting)[2])
        for future in reached:
            give(future, None)

    # Changes of phase

    def _move(self) -> None:
        """Have turns, unless it has them; the lock is held, and the first turn waits for it."""
        if not self._course.running:
            self._workers.take_turns(self._stint)
            self._course.enter(Phase.MOVING)

    def _hold_up(self) -> None:
        with self._lock:
            if self._course.phase is Phase.MOVING:
                self._course.enter(Phase.HELD_UP)

    def _go_on(self) -> None:
        with self._lock:
            if self._course.phase is Phase.HELD_UP:
                self._course.enter(Phase.MOVING)

    def _stop_if_satisfied(self) -> bool:
        """Come to rest if nothing is wanted or under way, all under the lock; tell if it stands.

        Who asks for more meanwhile either is seen here, or finds it at rest.
        """
        with self._lock:
            if self._course.phase is Phase.MOVING and not (self._wanted or self._steps.under_way):
                made = self._index.totals is not None
                self._course.enter(Phase.COMPLETE if made else Phase.REST)
            return self._course.phase is not Phase.MOVING

    def fail(self, error: BaseException) -> None:
        """Fail for good: whoever waits or comes later gets `error`. The first error stays."""
        with self._lock:
            if self.error is None:
                self.error = error
                _log_failure(self._plan.name, error)
            error = self.error
            self._course.enter(Phase.FAILED)
            waiting, self._waiting = self._waiting, []
        for _, _, future in waiting:
            refuse(future, error)

    # Its turn

    def _stint(self) -> bool | Future[Any]:
        """Seal until nothing is wanted, or others wait for their turn; tell whether there is more.

        What is under way is sealed before: left lying, it would take memory for each of many
        bundles that nobody reads just then. If storage does not answer, return what to wait for.
        """
        try:
            self._go_on()
            return self._take_steps()
        except BaseException as error:  # noqa: BLE001  # those who wait must hear of it: they hang otherwise
            self.fail(error)
        return False

    def _take_steps(self) -> bool | Future[Any]:
        taken = 0
        while not self._stop_if_satisfied():
            if self._wanted and (taken < _STINT or not self._workers.crowded):
                self._steps.begin()
            elif not self._steps.under_way:
                return True
            if not self._steps.ready(PATIENCE_SECONDS):
                if self._plan.maker.silent_seconds:
                    self._hold_up()
                    return self._steps.hold_back()
                continue
            self._steps.take()()
            taken += 1
        return False

    def _seal(self, made: MadeBlock) -> None:
        # The state may lie on storage that hangs.
        with asking_storage():
            if not self._begun:
                self._begin()
                self._begun = True
            self._sealer.seal(made)
            self._progress()
        self._tell()


def _log_failure(name: str, error: BaseException) -> None:
    if isinstance(error, ClosedError):
        return
    expected = isinstance(error, (BundlefsError, OSError))
    log.error("%s has failed and stays failed: %s", name, error, exc_info=not expected and error)
