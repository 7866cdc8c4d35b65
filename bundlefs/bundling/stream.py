"""The sealed stream behind the frontier: its blocks come from the store, or are made again.

    image - tar layout - blocks of 1 MiB - deflate each apart - CBC, carried chain - sealed

`SealedStream` serves any bytes that the frontier has sealed, from the store or made again from
the image and the index. No thread waits for a reader's bytes: a lane of each stream reads the
store's disk and the image, the pool makes the blocks, and the reader has a future.

A block that was made again is handed out only if it is what was sealed first: the CRC-32 of its
plain bytes must agree with the index, and the CBC state behind it, which depends on every byte of
the block, must be the one at the next boundary.

Concurrency: any number of threads may read. `_lock` guards which blocks are being made, so that
none is made twice at a time, however many wait for it.
"""

import sys
import threading
from concurrent.futures import Future
from functools import partial

from bundlefs.base.errors import ClosedError, InconsistentError
from bundlefs.base.futures import done, gathered, give, refuse
from bundlefs.base.spans import Span, ceil_div, joined_views
from bundlefs.base.workers import Workers
from bundlefs.bundling.maker import require_same
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.store import Store
from bundlefs.codec import cbc
from bundlefs.codec.deflate import gzip_trailer
from bundlefs.state.index import PART_SIZE


class SealedStream:
    """The sealed stream as far as it has been made. Any thread may read any bytes of it."""

    def __init__(self, plan: Plan, workers: Workers, store: Store) -> None:
        self._key = plan.secret.key
        self._index = plan.index
        self._maker = plan.maker
        self._workers = workers
        self._store = store
        self._reads = workers.lane(sys.maxsize, width=workers.ahead)
        self._lock = threading.Lock()
        self._making: dict[int, Future[memoryview]] = {}
        self._closed = False

    def keep(self, block: int, sealed: memoryview) -> None:
        """Keep a block that is sealed for the first time, before anyone hears of it."""
        self._store.put_first(block, sealed)

    @property
    def busy(self) -> bool:
        """Whether a block is being made again."""
        return bool(self._making)

    def read_fast(self, span: Span) -> memoryview | None:
        """Return the bytes of `span` if all of it is in memory; never wait."""
        pieces = self._pieces(span)
        return None if pieces is None else joined_views(pieces)

    def passing(self, span: Span) -> list[memoryview] | None:
        """Return the bytes of `span` if all is in memory, and some of it for the moment alone."""
        lasting = all(self._store.keeps(block) for block in self._blocks(span))
        return None if lasting else self._pieces(span)

    def _pieces(self, span: Span) -> list[memoryview] | None:
        pieces = []
        for block in self._blocks(span):
            data = self._store.get_fast(block)
            if data is None:
                return None
            pieces.append(self._cut(block, data, span))
        return pieces

    def read(self, span: Span) -> memoryview:
        """Return the bytes of `span`, which must be non-empty and lie behind the frontier; wait.

        Raises:
            ClosedError: the stream was closed before a block of it was made.
        """
        return self.when_read(span).result()

    def when_read(self, span: Span) -> Future[memoryview]:
        """Ask for the bytes of `span`; the future holds them, or what `read` raises."""
        blocks = self._blocks(span)
        asked = [self._ask(block) for block in blocks]
        self._read_ahead(blocks, span)

        def cut(found: list[memoryview]) -> memoryview:
            pairs = zip(blocks, found, strict=True)
            return joined_views([self._cut(block, data, span) for block, data in pairs])

        return gathered(asked, cut)

    def close(self) -> None:
        """Make no more blocks: nobody is to wait for them."""
        with self._lock:
            self._closed = True
            waiting = list(self._making.values())
        self._reads.drop()
        for future in waiting:
            refuse(future, ClosedError("the bundle was closed"))

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
        for block in range(blocks.stop, min(blocks.stop + self._workers.ahead, last + 1)):
            if not self._store.has(block):
                self._start(block)

    def _ask(self, block: int) -> Future[memoryview]:
        data = self._store.get_fast(block)
        return self._start(block) if data is None else done(data)

    def _start(self, block: int) -> Future[memoryview]:
        with self._lock:
            if self._closed:
                raise ClosedError("the bundle was closed")
            future = self._making.get(block)
            if future is None:
                future = Future()
                self._reads.submit(partial(self._fetch, block, future))
                self._making[block] = future
            return future

    def _fetch(self, block: int, future: Future[memoryview]) -> None:
        """Find a block in the store, or read what it is made of and have the pool make it."""
        try:
            kept = self._store.get(block)
            if kept is None:
                self._read_plain(block, future)
            else:
                self._hand_out(block, future, kept)
        except BaseException as error:  # noqa: BLE001  # those who wait must hear of it
            self._give_up(block, future, error)

    def _read_plain(self, block: int, future: Future[memoryview]) -> None:
        place = self._workers.room.take()
        try:
            plain = self._maker.read(block)
            self._workers.room.fill(place)
            self._workers.submit(partial(self._make_again, block, future, plain, place))
        except BaseException:
            self._workers.room.leave(place)
            raise

    def _make_again(
        self, block: int, future: Future[memoryview], plain: bytes, place: object
    ) -> None:
        try:
            data = self._remake(block, plain)
            self._store.put_again(block, data)
            self._hand_out(block, future, data)
        except BaseException as error:  # noqa: BLE001  # those who wait must hear of it
            self._give_up(block, future, error)
        finally:
            self._workers.room.leave(place)

    def _hand_out(self, block: int, future: Future[memoryview], data: memoryview) -> None:
        with self._lock:
            self._making.pop(block, None)
        give(future, data)

    def _give_up(self, block: int, future: Future[memoryview], error: BaseException) -> None:
        with self._lock:
            self._making.pop(block, None)
        refuse(future, ClosedError("the bundle was closed") if self._closed else error)

    def _remake(self, block: int, plain: bytes) -> memoryview:
        made = self._maker.deflate_again(plain)
        require_same(block, self._index.crc(block), made.crc)
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
            sealed = joined_views((sealed, cbc.finish(self._key, after, trailer)))
        return sealed
