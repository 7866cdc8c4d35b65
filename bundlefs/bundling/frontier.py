"""The frontier: how far the sealed stream has been made for the first time.

It moves forward only, block by block, as far as the farthest target that anyone
has asked for; blocks are made in parallel ahead of it. It leaves behind the
index: boundaries, part digests, and at the end the totals.

A pass is a sequence of *steps*, each begun in the background and taken in order. One
that is taken up again first reads all that was sealed before, since the state of a
SHA-1 cannot be kept; then the sealed bytes of the part that is not full; then it seals
what is new. One lane reads and digests the tar stream for all of them: the digest is
right because steps are begun in this order, and begun anew in it if they are held back.

Concurrency: that lane reads; the pool checks and deflates what was read; who has the
turn takes the steps, and alone writes to the index. Nobody waits for storage that does
not answer: the turn is given back until it does. `_lock` guards who waits.
"""

import hashlib
import heapq
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from bundlefs.base.errors import BundlefsError, ClosedError, InconsistentError
from bundlefs.base.futures import chain, done, give, refuse
from bundlefs.base.lanes import Lane
from bundlefs.base.spans import Span, joined_views, split
from bundlefs.base.threads import PATIENCE_SECONDS, asking_storage
from bundlefs.base.workers import Workers
from bundlefs.bundling.maker import MadeBlock, Maker, require_same
from bundlefs.bundling.plan import Plan
from bundlefs.codec import cbc
from bundlefs.codec.deflate import crc32, crc32_join, gzip_trailer
from bundlefs.state.index import PART_SIZE, Totals

log = logging.getLogger(__name__)

END = sys.maxsize
"""A target behind any stream: go on to the end."""

_STINT = 10
"""Blocks to be sealed before others have their turn."""


Step = Callable[[], None]
"""What is left to do when it is a block's turn."""


class Stream(Protocol):
    """Where sealed blocks go, and where those of before come from."""

    def keep(self, block: int, sealed: memoryview) -> None:
        """Take a block that is sealed for the first time, before anyone hears of it."""

    def when_read(self, span: Span) -> Future[memoryview]:
        """Ask for sealed bytes that lie behind the frontier."""


class Intake:
    """Reads the tar stream in order, on a lane, and digests each block while it is in the cache."""

    def __init__(self, maker: Maker, lane: Lane) -> None:
        self._maker = maker
        self._lane = lane
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    def read(self, block: int) -> Future[bytes]:
        """Read the next block."""
        return self._lane.submit(partial(self._read, block))

    def _read(self, block: int) -> bytes:
        plain = self._maker.read(block)
        self._sha1.update(plain)
        return plain

    def confirmed(self, confirm: Callable[[], None], step: Step) -> Future[Step]:
        """Have the source compared, and give back `step` if it is what it was."""

        def compare() -> Step:
            confirm()
            return step

        return self._lane.submit(compare)

    def digest(self) -> str:
        """Give the SHA-1 of all that was read."""
        return self._sha1.hexdigest()


class Sealer:
    """Encrypts the blocks in order and writes the index. Used by who has the turn alone."""

    def __init__(self, plan: Plan, intake: Intake, stream: Stream) -> None:
        self._plan = plan
        self._key = plan.secret.key
        self._index = plan.index
        self._last = plan.maker.blocks - 1
        self._intake = intake
        self._stream = stream
        self._part = hashlib.sha1(usedforsecurity=False)
        self._crc = 0

    def count_again(self, block: int, size: int) -> None:
        """Take up the CRC-32 of the next block that is sealed already."""
        self._crc = crc32_join(self._crc, self._index.crc(block), size)

    def digest_again(self, sealed: memoryview) -> None:
        """Take up the next bytes of the part that is not full."""
        self._part.update(sealed)

    def seal(self, made: MadeBlock) -> None:
        """Encrypt the next block, have it kept, then publish it in the index."""
        block = self._index.blocks
        self._crc = crc32_join(self._crc, made.crc, made.size)
        sealed, after = cbc.advance(self._key, self._index.state(block), made.deflated)
        if block == self._last:
            self._seal_last(sealed, after, made)
            return
        self._digest_parts(sealed)
        self._stream.keep(block, sealed)
        self._index.append(len(made.deflated), after, made.crc)

    def _seal_last(self, head: memoryview, after: cbc.CbcState, made: MadeBlock) -> None:
        tail = cbc.finish(self._key, after, gzip_trailer(self._crc, self._plan.maker.size))
        sealed = joined_views((head, tail))
        end = self._index.position + len(sealed)
        name, blocks = self._plan.name, self._last + 1
        log.info("%s is complete: %s bytes of it in %d blocks", name, f"{end:,}", blocks)
        promised = self._plan.promised_size
        if promised not in (None, end):
            raise InconsistentError(f"the sealed stream has {end:,} bytes, not {promised:,}")
        self._digest_parts(sealed)
        if end % PART_SIZE:
            self._index.part_digests.append(self._part.hexdigest())
        self._stream.keep(self._last, sealed)
        totals = Totals(self._crc, self._intake.digest(), end)
        self._index.append_last(len(made.deflated), after, made.crc, totals)

    def _digest_parts(self, sealed: memoryview) -> None:
        start = self._index.position
        rest = sealed
        for _, span in split(Span(start, start + len(sealed)), PART_SIZE):
            self._part.update(rest[: span.length])
            rest = rest[span.length :]
            if span.stop == PART_SIZE:
                self._index.part_digests.append(self._part.hexdigest())
                self._part = hashlib.sha1(usedforsecurity=False)


class Frontier:
    """Moves forward only, block by block, as far as the farthest target asked for."""

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        stream: Stream,
        progress: Callable[[], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = plan.name
        self._index = plan.index
        self._progress = progress
        self._begin = begin
        self._begun = False
        self._workers = workers
        self._plan = plan
        self._stream = stream
        self._intake = Intake(plan.maker, workers.lane(sys.maxsize))
        self._sealer = Sealer(plan, self._intake, stream)
        self._steps = workers.begun_in_order(self._all_steps())
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._target = 0
        self._busy = 0.0
        self._busy_since = 0.0
        self.running = False
        self.error: BaseException | None = None

    def _all_steps(self) -> Iterator[Callable[[], Future[Step]]]:
        """Give what begins each step, in order."""
        index, maker = self._plan.index, self._plan.maker
        sealed = 0 if index.totals else index.blocks
        for block in range(sealed):
            yield partial(self._read_then, block, partial(self._check, block))
        end = index.position
        start = end // PART_SIZE * PART_SIZE
        for block in range(index.block_at(start), sealed) if start < end and sealed else ():
            span = index.block_span(block).clip(Span(start, end))
            if span.length:
                yield partial(self._reread, span)
        for block in range(index.blocks, maker.blocks - 1):
            yield partial(self._read_then, block, self._deflate)
        if index.totals is None:
            yield self._read_last

    def _read_last(self) -> Future[Step]:
        """Have the source compared once more when all is read, and just before that is told."""
        made = self._read_then(self._plan.maker.blocks - 1, self._deflate)
        return chain(made, lambda step: self._intake.confirmed(self._plan.confirm, step))

    def _read_then(self, block: int, work: Callable[[bytes], Step]) -> Future[Step]:
        return self._workers.after(self._intake.read(block), work)

    def _reread(self, span: Span) -> Future[Step]:
        reading = self._stream.when_read(span)
        return chain(reading, lambda data: done(partial(self._sealer.digest_again, data)))

    def _check(self, block: int, plain: bytes) -> Step:
        """Refuse a block that is not what it was when it was sealed."""
        require_same(block, self._index.crc(block), crc32(plain))
        return partial(self._sealer.count_again, block, len(plain))

    def _deflate(self, plain: bytes) -> Step:
        return partial(self._seal, self._plan.maker.deflate(plain))

    @property
    def seconds(self) -> float:
        """How long it has been moving, without the pauses."""
        now = time.monotonic() - self._busy_since if self.running else 0.0
        return self._busy + now

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
                self._start()
        return future

    def _reached(self, target: int) -> bool:
        return self._index.totals is not None or self._index.position >= target

    def _start(self) -> None:
        if not self.running:
            self.running = True
            self._busy_since = time.monotonic()
            self._workers.take_turns(self._stint)

    def _stint(self) -> bool | Future[Any]:
        """Seal until nothing is wanted, or others wait for their turn; tell whether there is more.

        What is under way is sealed before: left lying, it would take memory for each of many
        bundles that nobody reads just then. If storage does not answer, give what to wait for.
        """
        try:
            return self._take_steps()
        # Whatever it is, those who wait must hear of it: they hang otherwise.
        except BaseException as error:  # noqa: BLE001
            self.fail(error)
        return False

    def _take_steps(self) -> bool | Future[Any]:
        taken = 0
        while self._goes_on():
            if self._wanted and (taken < _STINT or not self._workers.crowded):
                self._steps.begin()
            elif not self._steps.under_way:
                return True
            if not self._steps.ready(PATIENCE_SECONDS):
                if self._plan.maker.silent_seconds:
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

    @property
    def _wanted(self) -> bool:
        return not self._reached(self._target)

    def _goes_on(self) -> bool:
        with self._lock:
            if self.error is None and (self._wanted or self._steps.under_way):
                return True
            self._busy = self.seconds
            self.running = False
            return False

    def _tell(self) -> None:
        reached = []
        with self._lock:
            while self._waiting and self._reached(self._waiting[0][0]):
                reached.append(heapq.heappop(self._waiting)[2])
        for future in reached:
            give(future, None)

    def fail(self, error: BaseException) -> None:
        """Fail for good: whoever waits or comes later gets `error`. The first error stays."""
        with self._lock:
            if self.error is None:
                self.error = error
                _log_failure(self._name, error)
            error = self.error
            self._busy = self.seconds
            self.running = False
            waiting, self._waiting = self._waiting, []
        for _, _, future in waiting:
            refuse(future, error)


def _log_failure(name: str, error: BaseException) -> None:
    if isinstance(error, ClosedError):
        return
    expected = isinstance(error, (BundlefsError, OSError))
    log.error("%s has failed and stays failed: %s", name, error, exc_info=not expected and error)
