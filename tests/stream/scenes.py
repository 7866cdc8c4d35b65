"""A sealed stream and its frontier over tar streams of any size, with sources that misbehave.

The streams are not real archives: no layer here knows what a tar header is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bundlefs.base.errors import ClosedError
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.bundling.maker import Maker
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.store import BlockStore
from bundlefs.bundling.stream import SealedStream
from bundlefs.codec.cbc import sealed_size
from bundlefs.codec.deflate import BLOCK_SIZE, Codec, codec_for, stored_size
from bundlefs.state.index import Index
from tests.stream.engine import HANG, SECRET
from tests.support.images import noise

MIB = 1 << 20
GZIP_FRAME = 20
NOISE = b"".join(noise(24 * MIB, "stream"))


@dataclass(slots=True)
class Source:
    """A tar stream from memory. `gate` keeps reads at and behind `gated_from` waiting.

    `fail_from` is the offset from which on reads raise `error`.
    """

    data: bytes
    gate: threading.Event = field(default_factory=threading.Event)
    gated_from: int = 1 << 60
    fail_from: int = 1 << 60
    error: Exception = field(default_factory=lambda: OSError(121, "Remote I/O error"))
    farthest: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, span: Span) -> bytes:
        if span.stop > self.gated_from:
            assert self.gate.wait(HANG), "the test left a gate closed"
        if span.stop > self.fail_from:
            raise self.error
        self.farthest = max(self.farthest, span.stop)
        return self.data[span.start : span.stop]


@dataclass(frozen=True, slots=True)
class Scene:
    """A stream, its frontier, and all they share."""

    plan: Plan
    frontier: Frontier
    stream: SealedStream
    store: BlockStore

    @property
    def index(self) -> Index:
        return self.plan.index

    def make(self, target: int = END) -> None:
        """Have the frontier move, and wait for it."""
        self.frontier.when(target).result(HANG)

    def whole(self) -> bytes:
        """Read what lies behind the frontier."""
        return bytes(self.stream.read(Span(0, self.index.position)))

    def forget(self) -> None:
        """Empty the store: everything has to be made again."""
        cache = self.store._cache  # noqa: SLF001 - no user ever wants this
        with cache._lock:  # noqa: SLF001
            cache._recent.clear()  # noqa: SLF001
            cache._recent_size = 0  # noqa: SLF001
            cache._kept.clear()  # noqa: SLF001


@contextmanager
def scene(
    source: Source,
    *,
    codec: Codec | None = None,
    jobs: int = 2,
    promised: int | None = None,
    index: Index | None = None,
) -> Iterator[Scene]:
    index = index or Index(SECRET.iv)
    plan = Plan(SECRET, index, Maker(source, codec or codec_for(1)), promised)
    with Workers(jobs) as workers:
        kept = BlockStore(0)
        stream = SealedStream(plan, workers, kept)
        frontier = Frontier(plan, workers, stream, lambda: None)
        try:
            yield Scene(plan, frontier, stream, kept)
        finally:
            frontier.fail(ClosedError("the test is over"))
            source.gate.set()


def stored(size: int) -> int:
    """Give the size of the sealed stream of `size` bytes, stored."""
    full, rest = divmod(size, BLOCK_SIZE)
    deflated = full * stored_size(BLOCK_SIZE) + (stored_size(rest) if rest else 0)
    return sealed_size(GZIP_FRAME + deflated)
