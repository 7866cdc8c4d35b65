"""A bundle as the file system asks for it: questions, each answered by a future.

Making a `BundleView` reads nothing but the image's extents. What is not known yet is asked for
with `when_sized`, `when_listed` and the like, which move the frontier as far as that question
needs; when their future is done, what `Files` says is true. Nothing here guesses, and nothing
here waits.

Failure is for good: the image's own errors, a changed image, bytes that do not agree. Every later
question gets the same error.

Concurrency: any thread may ask anything. Manifests are rendered on a lane of their own, which is
what keeps each to one rendering.
"""

import sys
from concurrent.futures import Future
from functools import partial

from bundlefs.base.errors import ClosedError, ImageChangedError, UnknownNameError
from bundlefs.base.futures import DONE, Promises, chain, done, failed, failure
from bundlefs.base.storage import Storage
from bundlefs.base.times import SECOND
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.files import Files
from bundlefs.bundling.fleeting import FleetingParts
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.bundling.maker import ImageTar, Maker
from bundlefs.bundling.names import Entry, IndexFile, ManifestFile, Part
from bundlefs.bundling.plan import Plan
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.status import Standing, Status
from bundlefs.bundling.stream import SealedStream
from bundlefs.codec import tar
from bundlefs.codec.deflate import codec_for
from bundlefs.image.source import Source
from bundlefs.image.watch import Watch
from bundlefs.state.index import PART_SIZE
from bundlefs.state.memory import State
from bundlefs.state.sealed_index import seal_index


class BundleView(Files):
    """The files of one bundle, made as they are asked for. Thread-safe."""

    def __init__(self, image: Source, recipe: Recipe, engine: Engine, state: State) -> None:
        created = state.created_ns // SECOND
        layout = tar.layout(recipe.prefix, image.size, created, state.extents)
        super().__init__(image, recipe, state, layout.size)
        storage = Storage.of(image.path)
        maker = Maker(ImageTar(image, layout), codec_for(recipe.level), storage)
        plan = Plan(
            state.secret,
            state.index,
            maker,
            self._promised,
            f"the bundle of {image.path}",
            image.require_unchanged,
        )
        workers = engine.workers
        self._state = state
        self._stream = SealedStream(plan, workers, engine.store)
        self._fleeting = FleetingParts(state.index, self._stream)
        self._frontier = Frontier(plan, workers, self._stream, self._progress, state.begin)
        self._watch = Watch(image, self._frontier.fail)
        self._promises = Promises()
        self._rendering = workers.lane(sys.maxsize)
        self._sealed_index = b""
        self._checks = workers.lane(sys.maxsize)
        self._standing = Standing(
            image, self._names, state.index, maker, self._frontier, self._fleeting
        )

    def _progress(self) -> None:
        # Saving the state may take long.
        self._fleeting.progress()
        self._state.progress()

    # Questions, answered by a future that holds the error if the bundle fails

    def when_listed(self) -> Future[None]:
        """Ask for all names and sizes."""
        return DONE if self._sealed_size is not None else self._frontier.when(END)

    def when_sized(self, entry: Entry) -> Future[None]:
        """Ask for the size of one entry, or whether it exists."""
        if self._beyond(entry) or self.known_size(entry) is not None:
            return DONE
        return self._frontier.when(entry.span.stop if isinstance(entry, Part) else END)

    def when_reached(self, entry: Entry, offset: int, length: int) -> Future[None]:
        """Ask for these bytes of an entry to be made."""
        if not isinstance(entry, Part):
            return self._frontier.when(END)
        return self._frontier.when(min(entry.span.start + offset + length, entry.span.stop))

    def when_digested(self, entry: Entry) -> Future[None]:
        """Ask for the digest of a part."""
        known = isinstance(entry, Part) and entry.number < len(self._index.part_digests)
        return DONE if known else self.when_reached(entry, 0, PART_SIZE)

    def when_complete(self) -> Future[None]:
        """Ask for everything to be made."""
        return self._frontier.when(END)

    # Bytes

    def read_fast(self, entry: Entry, offset: int, length: int) -> memoryview | None:
        """Return what `when_read` promises if that takes no time, else None."""
        if self._frontier.error is not None or not isinstance(entry, Part):
            return None
        # What is in memory is the bundle's, but the image may have gone another way meanwhile.
        self._watch.glance()
        span = self._part_span(entry, offset, length)
        return None if self._index.position < span.stop else self._stream.read_fast(span)

    def when_read(self, entry: Entry, offset: int, length: int) -> Future[memoryview]:
        """Ask for the bytes of an entry, which the future then holds; short only at its end."""
        found = chain(
            self.when_reached(entry, offset, length), lambda _: self._find(entry, offset, length)
        )
        # After the read, so that no change can slip in between.
        checked = chain(found, lambda data: self._checks.submit(partial(self._checked, data)))
        checked.add_done_callback(self._fail_with)
        return self._promises.promise(checked)

    def fleeting(self) -> FleetingParts | None:
        """Return what tells of parts that are made and soon not kept; None if that is no loss."""
        # Where sizes are promised nobody waits for a pass, and to make a block again is nothing.
        return self._fleeting if self._promised is None else None

    def _find(self, entry: Entry, offset: int, length: int) -> Future[memoryview]:
        if not isinstance(entry, Part):
            whole = self._rendering.submit(partial(self._whole, entry))
            return chain(whole, lambda data: done(memoryview(data)[offset : offset + length]))
        span = self._part_span(entry, offset, length)
        return self._stream.when_read(span) if span.length else done(memoryview(b""))

    def _whole(self, entry: ManifestFile | IndexFile) -> bytes:
        """Return the whole file; for one thread at a time."""
        if isinstance(entry, ManifestFile):
            return self._manifests.text(entry)
        self._sealed_index = self._sealed_index or seal_index(
            self._index.dump(), self._state.secret
        )
        return self._sealed_index

    def _checked(self, data: memoryview) -> memoryview:
        self._watch.check()
        return data

    def _fail_with(self, found: Future[memoryview]) -> None:
        """Fail for good: a reader was promised bytes that cannot be made, so trust no others."""
        error = failure(found)
        if isinstance(error, Exception) and not isinstance(error, UnknownNameError):
            self._frontier.fail(error)

    # Whether the image is still what it was

    def when_checked(self) -> Future[None]:
        """Ask whether the image is still what it was; the future holds the error if not."""
        error = self._frontier.error
        if error is None:
            return self._promises.promise(self._checks.submit(self.check))
        return failed(error) if isinstance(error, ImageChangedError) else DONE

    def check(self) -> None:
        """See whether the image is still what it was.

        Raises:
            ImageChangedError: it is not, or it was not when it was looked at before.
            OSError: it cannot be told.
        """
        error = self._frontier.error
        if isinstance(error, ImageChangedError):
            raise error.with_traceback(None)
        # What has failed otherwise, or is closed, answers for itself where bytes are needed.
        if error is None:
            self._watch.check()

    def look(self) -> Future[None]:
        """Have a thread compare the image; the future is done when `status` tells what it found."""
        return self._watch.look() if self._frontier.error is None else DONE

    # Where it stands, and its end

    def status(self) -> Status:
        """Return where the bundle stands; never waits."""
        return self._standing.status()

    def idle(self) -> bool:
        """Tell whether nothing is under way."""
        return not (self._frontier.running or self._stream.busy)

    def failure(self) -> BaseException | None:
        """Return the error if it has failed for good."""
        return self._frontier.error

    def close(self) -> None:
        """Make nothing more. Whoever waits gets an error. Again does nothing."""
        self._frontier.fail(ClosedError("the bundle is being closed"))
        self._stream.close()
        self._promises.close()
        self._state.save()
