"""A bundle as files in a sink, without FUSE: the parts in one pass, the manifests last.

What an earlier, broken-off run has left under its final name is kept if it is what
the index says: the state makes this resumable like a mount.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bundlefs.bundle import Bundle
from bundlefs.entries import Entry, ManifestFile, Part
from bundlefs.sinks import PartWriter, Sink, written
from bundlefs.store import BlockStore
from bundlefs.workers import Lane

_PIECE = 1 << 20
_BEHIND = 8


class Tap(BlockStore):
    """A store that hands on each block that is sealed for the first time, in order, on a lane."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(0)
        self._lane = lane
        self._take: Callable[[memoryview], None] = lambda _: None

    def open(self, take: Callable[[memoryview], None]) -> None:
        """Hand blocks to `take` from now on."""
        self._take = take

    def put_first(self, block: int, data: memoryview) -> None:  # noqa: ARG002  # they come in order
        """Hand on a block."""
        self._lane.do(partial(self._take, data))

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
    """

    def __init__(self, bundle: Bundle, tap: Tap, sink: Sink, folder: Path | None) -> None:
        self._bundle = bundle
        self._tap = tap
        self._sink = sink
        self._folder = folder

    def run(self) -> None:
        """Write all parts, then the manifests.

        Raises:
            Exception: what the sink raised.
            BundlefsError: the image changed, or the like.
        """
        sealed = self._bundle.sealed_before()
        for number in range(len(sealed.digests)):
            self._write_again(Part(number), sealed.digests[number])
        if not sealed.complete:
            self._write_new(len(sealed.digests), sealed.position)
        self._bundle.complete().result()
        for entry in self._bundle.entries():
            if isinstance(entry, ManifestFile):
                self._write(entry)

    def _write_new(self, number: int, position: int) -> None:
        """Go on at part `number`, of which `position` may lie within."""
        start = Part(number).span.start
        parts = PartWriter(self._sink, lambda part: self._bundle.name(Part(part)), start)
        try:
            if position > start:
                parts.write(self._bundle.read(Part(number), 0, position - start))
            self._tap.open(parts.write)
            self._bundle.complete().result()
            self._tap.finish()
            parts.close()
        except BaseException:
            parts.discard()
            raise

    def _write_again(self, part: Part, digest: str) -> None:
        if self._folder is None or _digest(self._folder / self._bundle.name(part)) != digest:
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
