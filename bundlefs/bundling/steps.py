"""The steps of a pass over an image, each begun in the background and taken in order.

A bundle that is taken up again first has all read that was sealed before, since the state of a
SHA-1 cannot be kept; then the sealed bytes of the part that is not full; then it seals what is
new:

    blocks      begun                         taken
    sealed      read, digest, compare         count its CRC-32 again
    sealed      the open part's sealed bytes  digest them as a part again
    new         read, digest, deflate         seal
    the last    the same, then compare the    seal
                image with what it was

The SHA-1 of the tar stream goes over the first and the last rows alone, on one lane, in the order
in which steps are begun. That is the order of the stream: `begins` yields the rows one after the
other, and a step that was called off is begun anew before any that was behind it. `Intake` checks
it all the same, since a wrong digest would go into a manifest.

Concurrency: the lane reads and digests, the pool compares and deflates. Steps are begun and taken
by who has the frontier's turn.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from bundlefs.base.errors import InconsistentError
from bundlefs.base.futures import chain, done
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.bundling.maker import MadeBlock, Maker, require_same
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.sealer import SealedBlocks, Sealer
from bundlefs.codec.deflate import crc32
from bundlefs.state.index import PART_SIZE

Step = Callable[[], None]
"""What is left to do when it is a block's turn."""

Begin = Callable[[], Future[Step]]
"""Begins a step in the background."""


class Intake:
    """Reads the tar stream in order, on a lane, and digests each block while it is in the cache."""

    def __init__(self, maker: Maker, workers: Workers) -> None:
        self._maker = maker
        self._lane = workers.lane(sys.maxsize)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._next = 0

    def read(self, block: int) -> Future[bytes]:
        """Ask for the next block."""
        return self._lane.submit(partial(self._read, block))

    def _read(self, block: int) -> bytes:
        if block != self._next:
            raise InconsistentError(f"block {block} was read where {self._next} comes next")
        plain = self._maker.read(block)
        self._sha1.update(plain)
        self._next += 1
        return plain

    def confirmed(self, confirm: Callable[[], None], step: Step) -> Future[Step]:
        """Have the image compared on the lane, and return `step` if it is what it was."""

        def compare() -> Step:
            confirm()
            return step

        return self._lane.submit(compare)

    def digest(self) -> str:
        """Return the SHA-1 of all that was read."""
        return self._sha1.hexdigest()


class Steps:
    """What begins each step of one bundle.

    Args:
        plan: of the bundle; nothing is sealed before the steps are.
        workers: do what is begun.
        blocks: gives the sealed bytes of before.
        seal: takes each new block, in order.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        blocks: SealedBlocks,
        seal: Callable[[MadeBlock], None],
    ) -> None:
        self._plan = plan
        self._workers = workers
        self._blocks = blocks
        self._seal = seal
        self._intake = Intake(plan.maker, workers)
        self.sealer = Sealer(plan, self._intake.digest, blocks)

    def begins(self) -> Iterator[Begin]:
        """Yield what begins each step, in order."""
        index, maker = self._plan.index, self._plan.maker
        if index.totals is not None:
            return
        # How far it was before: the index grows when the new ones are taken.
        sealed = index.blocks
        for block in range(sealed):
            yield partial(self._read_then, block, partial(self._compare, block))
        yield from self._open_part(sealed)
        for block in range(sealed, maker.blocks - 1):
            yield partial(self._read_then, block, self._deflate)
        yield self._read_last

    def _open_part(self, sealed: int) -> Iterator[Begin]:
        """Yield what reads the sealed bytes of the part that is not full."""
        index = self._plan.index
        end = index.position
        start = end // PART_SIZE * PART_SIZE
        for block in range(index.block_at(start), sealed) if start < end and sealed else ():
            span = index.block_span(block).clip(Span(start, end))
            if span.length:
                yield partial(self._read_sealed, span)

    def _read_last(self) -> Future[Step]:
        """Have the image compared once more when all is read, and just before that is told."""
        made = self._read_then(self._plan.maker.blocks - 1, self._deflate)
        return chain(made, lambda step: self._intake.confirmed(self._plan.confirm, step))

    def _read_then(self, block: int, work: Callable[[bytes], Step]) -> Future[Step]:
        return self._workers.after(self._intake.read(block), work)

    def _read_sealed(self, span: Span) -> Future[Step]:
        reading = self._blocks.when_read(span)
        return chain(reading, lambda data: done(partial(self.sealer.digest_again, data)))

    def _compare(self, block: int, plain: bytes) -> Step:
        """Refuse a block that is not what it was when it was sealed."""
        require_same(block, self._plan.index.crc(block), crc32(plain))
        return partial(self.sealer.count_again, block, len(plain))

    def _deflate(self, plain: bytes) -> Step:
        return partial(self._seal, self._plan.maker.deflate(plain))
