"""Writes a bundle to a sink, without FUSE: the parts in one pass, index and manifests last.

A run that broke off is resumed like a mount, by its state: parts that it has left under their
final names are kept if they are what the index says. Nobody may read the bundle before `run`
does: blocks that are sealed before the tap is open are not seen again, and then it refuses.
"""

import hashlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bundlefs.base.errors import InconsistentError
from bundlefs.base.lanes import Lane
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.files import Sealed
from bundlefs.bundling.names import Entry, IndexFile, ManifestFile, Part
from bundlefs.bundling.sinks import PartWriter, Sink, written
from bundlefs.bundling.store import BlockStore, Store

_PIECE = 1 << 20


class Tap:
    """A store that hands on each block that is sealed for the first time, in order, on a lane.

    It keeps none of those, and a few of what was made again. Those that come before `open` are
    gone: whoever opens it has them, or is refused.
    """

    def __init__(self, lane: Lane) -> None:
        self._again = BlockStore(0)
        self._lane = lane
        self._lock = threading.Lock()
        self._take: Callable[[memoryview], None] | None = None
        self._gone = 0

    def open(self, take: Callable[[memoryview], None], block: int = 0) -> None:
        """Hand blocks to `take` from now on, of which `block` is to be the first.

        Raises:
            InconsistentError: `block` has gone by already.
        """
        with self._lock:
            if self._gone > block:
                raise InconsistentError(
                    f"block {block} of the bundle was made before anybody took it: let nobody read"
                    " a bundle while its export begins"
                )
            self._take = take

    def put_first(self, block: int, data: memoryview) -> None:
        """Hand on a block."""
        with self._lock:
            take = self._take
            if take is None:
                self._gone = block + 1
                return
        self._lane.do(partial(take, data))

    def put_again(self, block: int, data: memoryview) -> None:
        """Keep a block that was made again."""
        self._again.put_again(block, data)

    def get_fast(self, block: int) -> memoryview | None:
        """Return the block if it was made again a moment ago."""
        return self._again.get_fast(block)

    def get(self, block: int) -> memoryview | None:
        """Return the block if it was made again a moment ago."""
        return self._again.get(block)

    def has(self, block: int) -> bool:
        """Tell whether the block was made again a moment ago."""
        return self._again.has(block)

    def keeps(self, block: int) -> bool:  # noqa: ARG002  # as every `Store` has it
        """Return False: what went into the sink is gone from here."""
        return False

    def share(self, bundle: int) -> Store:  # noqa: ARG002  # as every `Store` has it
        """Return the tap itself: it is for the one bundle that is exported."""
        return self

    def drop(self) -> None:
        """Forget what is kept."""
        self._again.drop()

    def close(self) -> None:
        """Forget what is kept."""
        self._again.close()

    def finish(self) -> None:
        """Wait until all that was handed on is taken; raise the first error."""
        self._lane.finish()


class Export:
    """Writes a bundle to a sink.

    Args:
        bundle: made with `tap` as its store.
        tap: where its blocks come by.
        sink: where its files go.
        folder: where earlier files of it may be, to be kept if they are whole.
        passed: tells of the name of a part that was made before whether it is where it is to go.
    """

    def __init__(
        self,
        bundle: Bundle,
        tap: Tap,
        sink: Sink,
        folder: Path | None,
        passed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._bundle = bundle
        self._tap = tap
        self._sink = sink
        self._folder = folder
        self._passed = passed

    def run(self) -> None:
        """Write all parts, then the index if it is wanted, then the manifests.

        Raises:
            Exception: what the sink raised.
            BundlefsError: the image changed, or the like.
        """
        sealed = self._bundle.sealed_before()
        for number in range(len(sealed.digests)):
            self._write_again(Part(number), sealed.digests[number])
        if not sealed.complete:
            self._write_new(sealed)
        self._bundle.when_complete().result()
        for kind in (IndexFile, ManifestFile):
            for entry in self._bundle.entries():
                if isinstance(entry, kind):
                    self._write(entry)

    def _write_new(self, sealed: Sealed) -> None:
        """Go on at the part that is not full yet."""
        number, position = len(sealed.digests), sealed.position
        start = Part(number).span.start
        parts = PartWriter(self._sink, lambda part: self._bundle.name(Part(part)), start)
        try:
            if position > start:
                parts.write(self._bundle.read(Part(number), 0, position - start))
            self._tap.open(parts.write, sealed.blocks)
            self._bundle.when_complete().result()
            self._tap.finish()
            parts.close()
        except BaseException:
            parts.discard()
            raise

    def _write_again(self, part: Part, digest: str) -> None:
        name = self._bundle.name(part)
        if self._passed(name):
            return
        if self._folder is None or _digest(self._folder / name) != digest:
            self._write(part)

    def _write(self, entry: Entry) -> None:
        with written(self._sink, self._bundle.name(entry)) as file:
            offset = 0
            while data := self._bundle.read(entry, offset, _PIECE):
                file.write(data)
                offset += len(data)


def _digest(path: Path) -> str | None:
    try:
        # A pipe would wait for a writer, a device might not end.
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha1").hexdigest()
    except OSError:
        return None
