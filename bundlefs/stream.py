"""The sealed stream: made for the first time by the frontier, made again for readers.

    image - tar layout - blocks of 1 MiB - deflate each apart - CBC, carried chain - sealed

`Maker` turns a block number into deflated bytes, on a pool thread. `Frontier`
seals the blocks in order, once, only as far as somebody has asked. What lies
behind it `SealedStream` serves: from the store, or made again from the image
and the index.

Nothing made again is handed out unless it is what was sealed first: the CRC-32
of its source must agree with the index, and the CBC state behind it, which
depends on every byte of the block, must be the one at the next boundary.

Concurrency: the frontier has one lane for sealing and one for digesting the
plain bytes. Only the sealing lane writes to the index. `_lock` guards who waits.
"""

import hashlib
import heapq
import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bundlefs.codec import cbc
from bundlefs.codec.deflate import BLOCK_SIZE, Codec, crc32, gzip_trailer
from bundlefs.errors import BundlefsError, ClosedError, ImageChangedError, InconsistentError
from bundlefs.index import PART_SIZE, Index, Totals
from bundlefs.keys import Secret
from bundlefs.spans import Span, ceil_div, split
from bundlefs.store import BlockStore
from bundlefs.workers import Workers

log = logging.getLogger(__name__)

END = sys.maxsize
"""A target behind any stream: go on to the end."""


class Source(Protocol):
    """The tar stream. `read` gives exactly the bytes of a span, from any thread."""

    @property
    def size(self) -> int:
        """Length of the tar stream in bytes."""

    def read(self, span: Span) -> bytes:
        """Give exactly the bytes of `span`, or raise."""


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """A block of the tar stream, its CRC-32 and its deflated form."""

    plain: bytes
    crc: int
    deflated: bytes


class Maker:
    """Reads and deflates the block of a number. The only caller of the codec."""

    def __init__(self, source: Source, codec: Codec) -> None:
        self._source = source
        self._codec = codec
        self.size = source.size
        self.blocks = ceil_div(source.size, BLOCK_SIZE)
        self._lock = threading.Lock()
        self.made = 0

    def make(self, block: int) -> MadeBlock:
        """Give the block `block`, from 0."""
        start = block * BLOCK_SIZE
        plain = self._source.read(Span(start, min(start + BLOCK_SIZE, self.size)))
        made = MadeBlock(plain, crc32(plain), self._codec.compress(plain))
        with self._lock:
            self.made += 1
        return made


@dataclass(frozen=True, slots=True)
class Plan:
    """What the frontier and the readers of one bundle share.

    `promised_size` is the size of the sealed stream if it has been told before it was made.
    """

    secret: Secret
    index: Index
    maker: Maker
    promised_size: int | None = None


Keep = Callable[[int, memoryview], None]
"""Takes the number and the sealed bytes of each block, before anyone hears of it."""


class _PlainDigest:
    """SHA-1 and CRC-32 of the tar stream, on a lane beside the sealing, `depth` blocks behind."""

    def __init__(self, workers: Workers, depth: int) -> None:
        self._lane = workers.lane("digest")
        self._depth = depth
        self._running: deque[Future[None]] = deque()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._crc = 0

    def add(self, plain: bytes) -> None:
        self._running.append(self._lane.submit(self._digest, plain))
        while len(self._running) > self._depth:
            self._running.popleft().result()

    def _digest(self, plain: bytes) -> None:
        self._sha1.update(plain)
        self._crc = crc32(plain, self._crc)

    def results(self) -> tuple[int, str]:
        while self._running:
            self._running.popleft().result()
        return self._crc, self._sha1.hexdigest()


class Sealer:
    """Encrypts the blocks in order and writes the index. Used from the sealing lane alone."""

    def __init__(self, plan: Plan, digest: _PlainDigest, keep: Keep) -> None:
        self._plan = plan
        self._key = plan.secret.key
        self._index = plan.index
        self._last = plan.maker.blocks - 1
        self._plain = digest
        self._keep = keep
        self._part = hashlib.sha1(usedforsecurity=False)

    def seal(self, made: MadeBlock) -> None:
        """Encrypt the next block, have it kept, then publish it in the index."""
        block = self._index.blocks
        self._plain.add(made.plain)
        sealed, after = cbc.advance(self._key, self._index.state(block), made.deflated)
        if block == self._last:
            self._seal_last(sealed, after, made)
            return
        self._digest_parts(sealed)
        self._keep(block, sealed)
        self._index.append(len(made.deflated), after, made.crc)

    def _seal_last(self, head: memoryview, after: cbc.CbcState, made: MadeBlock) -> None:
        crc, digest = self._plain.results()
        tail = cbc.finish(self._key, after, gzip_trailer(crc, self._plan.maker.size))
        sealed = _joined((head, tail))
        end = self._index.position + len(sealed)
        log.info("the bundle is complete: %s bytes of it in %d blocks", f"{end:,}", self._last + 1)
        promised = self._plan.promised_size
        if promised not in (None, end):
            raise InconsistentError(f"the sealed stream has {end:,} bytes, not {promised:,}")
        self._digest_parts(sealed)
        if end % PART_SIZE:
            self._index.part_digests.append(self._part.hexdigest())
        self._keep(self._last, sealed)
        totals = Totals(crc, digest, end)
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

    def __init__(self, plan: Plan, workers: Workers, keep: Keep) -> None:
        self._index = plan.index
        self._maker = plan.maker
        self._workers = workers
        self._depth = 2 * workers.jobs + 2
        self._sealer = Sealer(plan, _PlainDigest(workers, self._depth), keep)
        self._lane = workers.lane("seal")
        self._window: deque[Future[MadeBlock]] = deque()
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._target = 0
        self._busy = 0.0
        self._busy_since = 0.0
        self.running = False
        self.error: BaseException | None = None

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
                future.set_exception(self.error)
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
            self._lane.submit(self._run)

    def _run(self) -> None:
        try:
            while self._wanted():
                self._advance()
        # Whatever it is, those who wait must hear of it: they hang otherwise.
        except BaseException as error:  # noqa: BLE001
            self._window.clear()
            self.fail(error)

    def _wanted(self) -> bool:
        with self._lock:
            if self.error is None and not self._reached(self._target):
                return True
            self._busy = self.seconds
            self.running = False
            return False

    def _advance(self) -> None:
        block = self._index.blocks
        while len(self._window) < min(self._depth, self._maker.blocks - block):
            ahead = block + len(self._window)
            self._window.append(self._workers.submit(partial(self._maker.make, ahead)))
        self._sealer.seal(self._window.popleft().result())
        self._tell()

    def _tell(self) -> None:
        reached = []
        with self._lock:
            while self._waiting and self._reached(self._waiting[0][0]):
                reached.append(heapq.heappop(self._waiting)[2])
        for future in reached:
            future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Fail for good: whoever waits or comes later gets `error`. The first error stays."""
        with self._lock:
            if self.error is None:
                self.error = error
                _log_failure(error)
            error = self.error
            self.running = False
            waiting, self._waiting = self._waiting, []
        for _, _, future in waiting:
            future.set_exception(error)


def _log_failure(error: BaseException) -> None:
    if isinstance(error, ClosedError):
        return
    expected = isinstance(error, (BundlefsError, OSError))
    log.error("the bundle has failed and stays failed: %s", error, exc_info=not expected and error)


class SealedStream:
    """Any bytes behind the frontier, from any thread."""

    def __init__(self, plan: Plan, workers: Workers, store: BlockStore) -> None:
        self._key = plan.secret.key
        self._index = plan.index
        self._maker = plan.maker
        self._workers = workers
        self._store = store
        self._lock = threading.Lock()
        self._making: dict[int, Future[memoryview]] = {}

    def read_fast(self, span: Span) -> memoryview | None:
        """Give the bytes of `span` if all of it is in memory; never waits."""
        pieces = []
        for block in self._blocks(span):
            data = self._store.get_fast(block)
            if data is None:
                return None
            pieces.append(self._cut(block, data, span))
        return _joined(pieces)

    def read(self, span: Span) -> memoryview:
        """Give the bytes of `span`, which must be non-empty and lie behind the frontier."""
        blocks = self._blocks(span)
        futures = {block: self._start(block) for block in blocks if not self._store.has(block)}
        self._read_ahead(blocks, span)
        pieces = []
        for block in blocks:
            future = futures.get(block)
            data = future.result() if future else self._store.get(block)
            # It may have been dropped since it was seen in the store.
            data = self._start(block).result() if data is None else data
            pieces.append(self._cut(block, data, span))
        return _joined(pieces)

    def _blocks(self, span: Span) -> range:
        return range(self._index.block_at(span.start), self._index.block_at(span.stop - 1) + 1)

    def _cut(self, block: int, data: memoryview, span: Span) -> memoryview:
        own = self._index.block_span(block)
        inside = span.clip(own).shift(-own.start)
        return data[inside.start : inside.stop]

    def _read_ahead(self, blocks: range, span: Span) -> None:
        """Start the next blocks of this part if the reader seems to come through in order."""
        in_order = blocks.start == 0 or self._store.has(blocks.start - 1)
        if not in_order and span.start % PART_SIZE:
            return
        part_end = min(ceil_div(span.stop, PART_SIZE) * PART_SIZE, self._index.position)
        last = self._index.block_at(part_end - 1)
        for block in range(blocks.stop, min(blocks.stop + self._workers.jobs, last + 1)):
            if not self._store.has(block):
                self._start(block)

    def _start(self, block: int) -> Future[memoryview]:
        with self._lock:
            future = self._making.get(block)
            if future is None:
                future = self._workers.submit(partial(self._make_again, block))
                self._making[block] = future
            return future

    def _make_again(self, block: int) -> memoryview:
        try:
            data = self._store.get(block)
            if data is None:
                data = self._remake(block)
                self._store.put_again(block, data)
            return data
        finally:
            with self._lock:
                del self._making[block]

    def _remake(self, block: int) -> memoryview:
        made = self._maker.make(block)
        if made.crc != self._index.crc(block):
            raise ImageChangedError(
                f"the image has changed under the mount: the MiB at offset {block * BLOCK_SIZE} of"
                f" its tar stream has CRC-32 {made.crc:08x}, was {self._index.crc(block):08x}"
            )
        after = self._index.state(block + 1)
        sealed, found = cbc.advance(self._key, self._index.state(block), made.deflated)
        if found != after:
            raise InconsistentError(
                f"block {block} did not come out as it was first sealed: the codec does not give"
                " the same bytes twice on this machine"
            )
        totals = self._index.totals
        if totals and block == self._maker.blocks - 1:
            trailer = gzip_trailer(totals.crc, self._maker.size)
            sealed = _joined((sealed, cbc.finish(self._key, after, trailer)))
        return sealed


def _joined(pieces: Sequence[memoryview]) -> memoryview:
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
