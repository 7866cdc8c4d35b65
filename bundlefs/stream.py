"""The sealed stream behind the frontier: from the store, or made again.

    image - tar layout - blocks of 1 MiB - deflate each apart - CBC, carried chain - sealed

`Maker` turns a block number into deflated bytes, on a pool thread; the frontier
and the readers share it. `SealedStream` serves any bytes that the frontier has
sealed, from the store or made again from the image and the index.

Nothing made again is handed out unless it is what was sealed first: the CRC-32
of its source must agree with the index, and the CBC state behind it, which
depends on every byte of the block, must be the one at the next boundary.

Concurrency: any number of readers; `_lock` guards which blocks are being made, so
that none is made twice at a time.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bundlefs.codec import cbc
from bundlefs.codec.deflate import BLOCK_SIZE, GZIP_HEADER, Codec, crc32, gzip_trailer, stored_size
from bundlefs.errors import ClosedError, ImageChangedError, InconsistentError
from bundlefs.index import PART_SIZE, Index
from bundlefs.keys import Secret
from bundlefs.spans import Span, ceil_div
from bundlefs.store import BlockStore
from bundlefs.workers import Workers


class Source(Protocol):
    """The tar stream. `read` gives exactly the bytes of a span, from any thread."""

    @property
    def size(self) -> int:
        """Length of the tar stream in bytes."""

    def read(self, span: Span) -> bytes:
        """Give exactly the bytes of `span`, or raise."""


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """A block of the tar stream: its length, its CRC-32 and its deflated form."""

    size: int
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

    def read(self, block: int) -> bytes:
        """Give the plain bytes of a block, from 0."""
        start = block * BLOCK_SIZE
        return self._source.read(Span(start, min(start + BLOCK_SIZE, self.size)))

    def deflate(self, plain: bytes) -> MadeBlock:
        """Deflate the plain bytes of a block."""
        made = MadeBlock(len(plain), crc32(plain), self._codec.compress(plain))
        with self._lock:
            self.made += 1
        return made


def require_same(block: int, before: int, now: int) -> None:
    """Refuse a block whose plain bytes are not what they were when it was first sealed."""
    if before != now:
        raise ImageChangedError(
            f"the image has changed: block {block}, at offset {block * BLOCK_SIZE} of its tar"
            f" stream, had CRC-32 {before:08x} and has {now:08x}; mount it anew with --fresh"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What the frontier and the readers of one bundle share.

    `promised_size` is the size of the sealed stream if it has been told before it was made;
    `name` is for the log.
    """

    secret: Secret
    index: Index
    maker: Maker
    promised_size: int | None = None
    name: str = "the bundle"


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
        self._closed = False

    def keep(self, block: int, sealed: memoryview) -> None:
        """Keep a block that is sealed for the first time, before anyone hears of it."""
        self._store.put_first(block, sealed)

    @property
    def busy(self) -> bool:
        """Whether a block is being made again."""
        return bool(self._making)

    def read_fast(self, span: Span) -> memoryview | None:
        """Give the bytes of `span` if all of it is in memory; never waits."""
        pieces = []
        for block in self._blocks(span):
            data = self._store.get_fast(block)
            if data is None:
                return None
            pieces.append(self._cut(block, data, span))
        return joined(pieces)

    def read(self, span: Span) -> memoryview:
        """Give the bytes of `span`, which must be non-empty and lie behind the frontier.

        Raises:
            ClosedError: a block of it was waited for, and not begun, when the stream was closed.
        """
        try:
            return self._read(span)
        except CancelledError as error:
            raise ClosedError("the bundle was closed") from error

    def close(self) -> None:
        """Drop the blocks that are not begun: making them would hold up the end for nobody."""
        with self._lock:
            self._closed = True
            waiting = list(self._making.values())
        for future in waiting:
            future.cancel()

    def _read(self, span: Span) -> memoryview:
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
        return joined(pieces)

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
            if self._closed:
                raise ClosedError("the bundle was closed")
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
        made = self._maker.deflate(self._maker.read(block))
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
            sealed = joined((sealed, cbc.finish(self._key, after, trailer)))
        return sealed


def joined(pieces: Sequence[memoryview]) -> memoryview:
    """Give the bytes of all pieces, without a copy if there is one."""
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def stored_stream_size(tar_size: int) -> int:
    """Give the size of the sealed stream with stored blocks: level 0's own, others' bound."""
    blocks, rest = divmod(tar_size, BLOCK_SIZE)
    deflated = blocks * stored_size(BLOCK_SIZE) + (stored_size(rest) if rest else 0)
    return cbc.sealed_size(len(GZIP_HEADER) + deflated + len(gzip_trailer(0, tar_size)))
