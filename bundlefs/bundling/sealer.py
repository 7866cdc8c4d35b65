"""Seals the blocks of a bundle in order, and writes the index.

    MadeBlock - CBC, carried chain - sealed bytes - digests of the parts - index

Concurrency: who has the frontier's turn uses the `Sealer`, and nobody else. It alone writes to
the index, and publishes a block there after everything else is done with it.
"""

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from bundlefs.base.errors import InconsistentError
from bundlefs.base.spans import Span, joined_views, split
from bundlefs.bundling.maker import MadeBlock
from bundlefs.bundling.plan import Plan
from bundlefs.codec import cbc
from bundlefs.codec.deflate import crc32_join, gzip_trailer
from bundlefs.state.index import PART_SIZE, Totals

log = logging.getLogger(__name__)


class SealedBlocks(Protocol):
    """Where sealed blocks go, and where those of before come from."""

    def keep(self, block: int, sealed: memoryview) -> None:
        """Take a block that is sealed for the first time, before anyone hears of it."""

    def when_read(self, span: Span) -> Future[memoryview]:
        """Ask for sealed bytes that lie behind the frontier."""


class Sealer:
    """Encrypts the next block, digests it as parts, and takes note of it.

    Args:
        plan: of the bundle.
        tar_digest: gives the SHA-1 of the tar stream, when all of it has been read.
        blocks: where sealed blocks go.
    """

    def __init__(self, plan: Plan, tar_digest: Callable[[], str], blocks: SealedBlocks) -> None:
        self._plan = plan
        self._key = plan.secret.key
        self._index = plan.index
        self._last = plan.maker.blocks - 1
        self._tar_digest = tar_digest
        self._blocks = blocks
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
        self._blocks.keep(block, sealed)
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
        self._blocks.keep(self._last, sealed)
        totals = Totals(self._crc, self._tar_digest(), end)
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
