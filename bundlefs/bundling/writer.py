"""Writes a bundle without FUSE: an image goes in, files come out, in one pass and constant memory.

    with BundleWriter("image", size, DirectorySink("bundle")) as writer:
        shutil.copyfileobj(image, writer)
    writer.write_manifest(Metadata(account="123456789012"))

It is the same engine as the mount's: what is written in becomes the source of a
frontier, and what the frontier seals is cut into parts and written out.

Concurrency: the caller writes from one thread. That waits when the pool is more than a few blocks
behind, and the pool waits for it when it is ahead. It may never come: when the program ends,
`Workers.shutting` wakes those who wait.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

from bundlefs.base.checks import MOST, whole
from bundlefs.base.errors import BundlefsError, ClosedError, UsageError
from bundlefs.base.lanes import Lane
from bundlefs.base.spans import Span
from bundlefs.base.times import SECOND
from bundlefs.base.workers import MOST_JOBS, Workers, default_jobs
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.bundling.maker import Maker, stored_stream_size
from bundlefs.bundling.manifests import bundle_contents
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.recipe import check_prefix
from bundlefs.bundling.sinks import PartWriter, Sink, written
from bundlefs.codec import tar
from bundlefs.codec.deflate import BLOCK_SIZE, codec_for
from bundlefs.keys.regions import Recipient, recipients
from bundlefs.keys.rsa import UserKeys
from bundlefs.keys.types import PublicKey
from bundlefs.manifest.sealed import render_sealed
from bundlefs.manifest.write import Metadata
from bundlefs.state.index import Totals, number_width, part_name
from bundlefs.state.memory import State
from bundlefs.state.sealed_index import index_name, seal_index


class BundleWriter:
    """Takes the bytes of an image and writes the parts of its bundle. A context manager.

    Args:
        basename: what the names of the files start with; the tar member has it as well.
        size: bytes of the image, 1 or more; exactly as many must be written.
        sink: where the parts go.
        level: 0 (stored), 1 (fastest) to 9 (smallest).
        jobs: threads, 1 or more; as many as there are processors by default.
        user_keys: whose private key can decrypt the bundle later; by default nobody's but EC2's.
        state: secret and creation time; new ones by default.

    Raises:
        UsageError: the name, size, level or number of threads cannot be.
    """

    def __init__(  # noqa: PLR0913  # all but three have defaults, and are named
        self,
        basename: str,
        size: int,
        sink: Sink,
        *,
        level: int = 6,
        jobs: int | None = None,
        user_keys: UserKeys | None = None,
        state: State | None = None,
    ) -> None:
        _require_usable(size, jobs)
        self._state = state or State(None)
        self._basename = check_prefix(basename)
        self._size = size
        self._sink = sink
        self._keys = user_keys or UserKeys.load(None, None)
        layout = tar.layout(basename, size, self._state.created_ns // SECOND, None)
        self._head, self._tail = _around(layout)
        self._width = number_width(stored_stream_size(layout.size))
        self._workers = Workers(default_jobs() if jobs is None else jobs)
        ahead = 2 * self._workers.jobs + 4
        self._source = _Pushed(layout.size, ahead)
        # At the end of the program too: Python waits for the threads, and they for the caller.
        self._workers.shutting.add_done_callback(lambda _: self._source.wake())
        self._written = 0
        self._closed = False
        self._complete = False
        maker = Maker(self._source, codec_for(level))
        plan = Plan(self._state.secret, self._state.index, maker)
        self._parts = PartWriter(sink, self._part_name)
        out = _Out(self._parts, self._workers.lane())
        self._frontier = Frontier(plan, self._workers, out, lambda: None)
        self._done = self._frontier.when(END)
        self._done.add_done_callback(lambda _: self._source.wake())
        self._out = out
        self._push(self._head)

    def _part_name(self, number: int) -> str:
        return part_name(self._basename, number, self._width)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write the next bytes of the image, any number of them; return how many.

        Raises:
            BundlefsError: more than `size` bytes, or the writer is closed.
            Exception: what the sink raised; OSError if it is a folder.
        """
        view = memoryview(data).cast("B")
        if self._closed:
            raise BundlefsError("the bundle is closed; nothing more can be written to it")
        if self._written + len(view) > self._size:
            raise BundlefsError(
                f"{self._written + len(view)} bytes were written, and the size that was announced"
                f" is {self._size}"
            )
        self._push(view)
        self._written += len(view)
        return len(view)

    def _push(self, data: bytes | memoryview) -> None:
        try:
            self._source.push(memoryview(data), self._done.done)
        except BaseException:
            # Ctrl-C while waiting, say: nobody knows how much of `data` was taken.
            self._frontier.fail(ClosedError("a write was interrupted; begin the bundle anew"))
            raise
        self._require_no_error()

    def _require_no_error(self) -> None:
        if self._done.done():
            self._done.result()

    def close(self) -> None:
        """End the bundle: all parts are in the sink when it returns. Again does nothing.

        Raises:
            BundlefsError: fewer bytes than `size` were written.
            Exception: what the sink raised; OSError if it is a folder.
        """
        if self._closed:
            return
        try:
            self._require_no_error()
            self._require_size()
            self._push(self._tail)
            self._done.result()
            self._out.finish()
            self._parts.close()
        except BaseException:
            self.abort()
            raise
        self._closed = self._complete = True
        self._workers.close()

    def _require_size(self) -> None:
        if self._written != self._size:
            raise BundlefsError(
                f"{self._written} bytes were written, and the size that was announced is"
                f" {self._size}"
            )

    def abort(self) -> None:
        """Give up: the part that is being written is dropped, those before it stay."""
        if self._closed:
            return
        self._closed = True
        self._frontier.fail(ClosedError("the bundle was given up"))
        self._source.wake()
        self._workers.close()
        self._parts.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write_manifest(
        self,
        metadata: Metadata,
        sink: Sink | None = None,
        *,
        region: str | None = None,
        ec2_key: PublicKey | None = None,
    ) -> str:
        """Write a manifest and return its file name; once for each region.

        Args:
            metadata: account, architecture and the like.
            sink: where to, if not to the parts' own.
            region: of EC2; the standard key by default.
            ec2_key: the key of a region or cloud that bundlefs does not know.

        Raises:
            BundlefsError: the writer is not closed yet, or was given up.
            UsageError: the key of the region is not known.
        """
        regions = [region] if region and ec2_key is None else []
        certs = [(region, ec2_key)] if ec2_key is not None else []
        return self.write_manifest_for(
            metadata, recipients(self._basename, regions, certs)[0], sink
        )

    def write_manifest_for(
        self, metadata: Metadata, to: Recipient, sink: Sink | None = None
    ) -> str:
        """Write the manifest of a recipient and return its file name; else as `write_manifest`."""
        totals = self._totals("a manifest")
        contents = bundle_contents(
            self._basename, self._size, totals, self._part_name, self._state.index.part_digests
        )
        text = render_sealed(metadata, contents, to, self._keys, self._state.secret)
        with written(sink or self._sink, to.filename) as file:
            file.write(memoryview(text))
        return to.filename

    def write_index(self, sink: Sink | None = None) -> str:
        """Write the index and return its file name: with it, any host reads the bundle at random.

        It belongs beside the manifest.

        Args:
            sink: where to, if not to the parts' own.

        Raises:
            BundlefsError: the writer is not closed yet, or was given up.
        """
        self._totals("an index")
        name = index_name(self._basename)
        with written(sink or self._sink, name) as file:
            file.write(memoryview(seal_index(self._state.index.dump(), self._state.secret)))
        return name

    def _totals(self, wanted: str) -> Totals:
        totals = self._state.index.totals
        if not self._complete or totals is None:
            raise BundlefsError(
                "the bundle was given up: its parts are not all there"
                if self._closed
                else f"close the bundle first: {wanted} has the digests of all parts"
            )
        return totals


def _require_usable(size: int, jobs: int | None) -> None:
    if whole("size", size, -MOST) <= 0:
        raise UsageError(f"an image has 1 byte or more, not {size}")
    if jobs is not None and whole("jobs", jobs, -MOST, MOST_JOBS) <= 0:
        raise UsageError(f"a bundle is made by 1 thread or more, not {jobs}")


def _around(layout: tar.TarLayout) -> tuple[bytes, bytes]:
    """Return what comes before and after the image in its tar stream."""
    before, after = bytearray(), bytearray()
    target = before
    for piece in layout.pieces(Span(0, layout.size)):
        if isinstance(piece, tar.FromImage):
            target = after
        else:
            target += piece.data
    return bytes(before), bytes(after)


class _Out:
    """Takes what the frontier seals to the parts, on a lane, so that a slow disk overlaps."""

    def __init__(self, parts: PartWriter, lane: Lane) -> None:
        self._parts = parts
        self._lane = lane

    def keep(self, block: int, sealed: memoryview) -> None:  # noqa: ARG002  # blocks come in order
        self._lane.do(partial(self._parts.write, sealed))

    def when_read(self, span: Span) -> Future[memoryview]:
        raise BundlefsError(f"nothing was sealed before, so there is no {span}")

    def finish(self) -> None:
        self._lane.finish()


class _Pushed:
    """A tar stream that is pushed in from one side and read, each block once, from the other."""

    def __init__(self, size: int, ahead: int) -> None:
        self.size = size
        self._ahead = ahead
        self._changed = threading.Condition()
        self._blocks: dict[int, bytes] = {}
        self._next = 0
        self._filling = bytearray()
        self._woken = False

    def push(self, data: memoryview, ended: Callable[[], bool]) -> None:
        """Take the next bytes; wait for the readers if they are far behind, unless it has ended."""
        while data:
            room = self._block_size() - len(self._filling)
            self._filling += data[:room]
            data = data[room:]
            if len(self._filling) == self._block_size():
                self._publish(ended)

    def _block_size(self) -> int:
        return min(BLOCK_SIZE, self.size - self._next * BLOCK_SIZE)

    def _publish(self, ended: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._blocks) < self._ahead or ended())
            self._blocks[self._next] = bytes(self._filling)
            self._changed.notify_all()
        self._next += 1
        self._filling.clear()

    def read(self, span: Span) -> bytes:
        """Return a block once it has come, and forget it."""
        block = span.start // BLOCK_SIZE
        with self._changed:
            self._changed.wait_for(lambda: block in self._blocks or self._woken)
            if self._woken:
                raise ClosedError("the bundle was given up")
            data = self._blocks.pop(block)
            self._changed.notify_all()
        return data

    def wake(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()
