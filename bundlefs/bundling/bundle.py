"""A bundle as files: names, sizes and bytes, of which the file system is a thin view.

A `Bundle` is made of an image and a `Recipe`. Making one reads nothing but the
image's extents. What is not known yet is asked for with `when_sized`, `when_listed` and
`when_reached`, which answer with a future and move the frontier as far as that
question needs; then `size`, `names` and `read` tell the truth. Nothing here
guesses, and nothing here waits but `read`.

Failure is for good: the image's own errors, a changed image, bytes that do not
agree. Every later question gets the same error.
"""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from bundlefs.base.checks import whole
from bundlefs.base.errors import (
    BundlefsError,
    ClosedError,
    ImageChangedError,
    UnknownNameError,
)
from bundlefs.base.futures import Promises, chain, done, failed, failure
from bundlefs.base.spans import Span, joined
from bundlefs.base.storage import Storage
from bundlefs.base.workers import Workers, default_jobs
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.frontier import END, Frontier
from bundlefs.bundling.manifests import Manifests
from bundlefs.bundling.names import Entry, ManifestFile, Names, Part
from bundlefs.bundling.recipe import Recipe, check_prefix
from bundlefs.bundling.store import DEFAULT_CACHE_SIZE, BlockStore
from bundlefs.bundling.stream import Maker, Plan, SealedStream, stored_stream_size
from bundlefs.codec import tar
from bundlefs.codec.deflate import BLOCK_SIZE, codec_for
from bundlefs.image.open import open_source
from bundlefs.image.source import Source
from bundlefs.image.watch import Watch
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import UserKeys
from bundlefs.manifest.write import Metadata
from bundlefs.state.index import PART_SIZE, number_width, part_count
from bundlefs.state.memory import State

NANOSECONDS = 10**9

_DONE: Future[None] = done(None)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a bundle stands; all sizes in bytes.

    `phase` is `idle` (nothing asked for), `indexing` (the frontier moves), `complete` or `failed`.
    `storage_silent_seconds` is for how long the image's storage has not answered a read, and 0
    while it answers within a second.
    """

    phase: str
    image: str
    image_size: int
    image_bytes_read: int
    tar_size: int
    tar_bytes_done: int
    parts_made: int
    sealed_bytes: int
    blocks_compressed: int
    seconds: float
    pass_seconds: float
    storage_silent_seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far a bundle has been made: blocks, digests of its whole parts, bytes, if that is all."""

    blocks: int
    digests: tuple[str, ...]
    position: int
    complete: bool


class _ImageSource:
    """The tar stream of an image, by its layout."""

    def __init__(self, image: Source, layout: tar.TarLayout) -> None:
        self._image = image
        self._layout = layout
        self.size = layout.size

    def read(self, span: Span) -> bytes:
        pieces = [
            self._image.read(piece.span.start, piece.length)
            if isinstance(piece, tar.FromImage)
            else piece.data
            for piece in self._layout.pieces(span)
        ]
        return joined(pieces)


class Bundle:
    """The files of one bundle. Thread-safe."""

    def __init__(self, image: Source, recipe: Recipe, engine: Engine, state: State) -> None:
        self._image = image
        self._recipe = recipe
        self._state = state
        self._owned = ExitStack()
        self._started = time.monotonic()
        # What the files show: after going back to an earlier bundle that is later than its own.
        self.created_ns = state.shown_ns
        layout = tar.layout(
            recipe.prefix, image.size, state.created_ns // NANOSECONDS, state.extents
        )
        self._bound = stored_stream_size(layout.size)
        # Stored blocks have no other size than this, so that level 0 knows all at once.
        self._promised = self._bound if recipe.level == 0 else None
        self._names = Names(recipe, number_width(self._bound))
        self._index = state.index
        storage = Storage.of(image.path)
        self._maker = Maker(_ImageSource(image, layout), codec_for(recipe.level), storage)
        plan = Plan(
            state.secret,
            self._index,
            self._maker,
            self._promised,
            f"the bundle of {image.path}",
            image.require_unchanged,
        )
        self._stream = SealedStream(plan, engine.workers, engine.store)
        self._frontier = Frontier(plan, engine.workers, self._stream, state.progress, state.begin)
        self._watch = Watch(image, self._frontier.fail)
        self._promises = Promises()
        self._rendering = engine.workers.lane(sys.maxsize)
        self._checks = engine.workers.lane(sys.maxsize)
        self._manifests = Manifests(self._names, image.size, state)

    @classmethod
    def from_image(  # noqa: PLR0913  # all but two have defaults, and are named
        cls,
        path: str | os.PathLike[str],
        metadata: Metadata,
        *,
        prefix: str = "image",
        regions: Sequence[str] = (),
        user_keys: UserKeys | None = None,
        level: int = 6,
        cache_size: int = DEFAULT_CACHE_SIZE,
        state: State | None = None,
    ) -> Self:
        """Give the bundle of an image, to be read file by file; a context manager.

        Args:
            path: a file in any form that the mount takes, or a block device.
            metadata: what goes into the manifests.
            prefix: what the names of the files start with.
            regions: for which there is to be a manifest; the standard key alone by default.
            user_keys: whose private key can decrypt the bundle later.
            level: 0 (stored), 1 (fastest) to 9 (smallest).
            cache_size: bytes of memory for sealed blocks, 0 or more.
            state: secret and creation time; new ones by default.

        Raises:
            ImageError: it cannot be opened.
            UsageError: a parameter cannot be.
        """
        recipe = Recipe(
            prefix=check_prefix(prefix),
            metadata=metadata,
            recipients=recipients(prefix, regions, []),
            user_keys=user_keys or UserKeys.load(None, None),
            level=level,
        )
        store = BlockStore(whole("cache_size", cache_size))
        with ExitStack() as stack:
            assembly = stack.enter_context(Assembly(Engine(Workers(default_jobs()), store)))
            bundle = assembly.bundle(
                cls,
                lambda: open_source(Path(path)),
                lambda image, _: (recipe, state or State(image.extents())),
            )
            bundle._owned = stack.pop_all()  # noqa: SLF001  # our own
        return bundle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # By name, for programs; waits

    def names(self) -> tuple[str, ...]:
        """Give the names of all files; waits until they are known.

        Raises:
            ImageChangedError: the image is not what it was.
        """
        self.when_listed().result()
        self.check()
        return tuple(self.name(entry) for entry in self.entries())

    def size(self, name: str) -> int:
        """Give the size of a file in bytes; waits until it is known.

        Raises:
            UnknownNameError: there is no such file.
            ImageChangedError: the image is not what it was.
        """
        entry = self.find(name)
        self.when_sized(entry).result()
        self.check()
        size = self.known_size(entry)
        if size is None:
            raise BundlefsError(f"the size of {name} is not known though it was made")
        return size

    # By entry

    def name(self, entry: Entry) -> str:
        """Give the file name of an entry."""
        return self._names.name(entry)

    def key(self, entry: Entry) -> int:
        """Give the number of an entry."""
        return self._names.key(entry)

    def entry(self, key: int) -> Entry:
        """Undo `key`."""
        return self._names.entry(key)

    def find(self, name: str) -> Entry:
        """Give the entry of a name that exists or may turn out to exist.

        Raises:
            UnknownNameError: no file has this name or ever will.
        """
        entry = self._names.parse(name)
        if entry is None or self._beyond(entry):
            raise UnknownNameError(f"no file {name!r} in this bundle")
        return entry

    def _beyond(self, entry: Entry) -> bool:
        limit = self._sealed_size
        end = self._bound if limit is None else limit
        return isinstance(entry, Part) and entry.span.start >= end

    @property
    def _sealed_size(self) -> int | None:
        totals = self._index.totals
        return totals.sealed_size if totals else self._promised

    # Questions, answered by a future that holds the error if the bundle fails

    def when_listed(self) -> Future[None]:
        """Ask for all names and sizes."""
        return _DONE if self._sealed_size is not None else self._frontier.when(END)

    def when_sized(self, entry: Entry) -> Future[None]:
        """Ask for the size of one entry, or whether it exists."""
        if self._beyond(entry) or self.known_size(entry) is not None:
            return _DONE
        return self._frontier.when(entry.span.stop if isinstance(entry, Part) else END)

    def when_reached(self, entry: Entry, offset: int, length: int) -> Future[None]:
        """Ask for these bytes of an entry."""
        if isinstance(entry, ManifestFile):
            return self._frontier.when(END)
        return self._frontier.when(min(entry.span.start + offset + length, entry.span.stop))

    def when_digested(self, entry: Entry) -> Future[None]:
        """Ask for the digest of a part."""
        known = isinstance(entry, Part) and entry.number < len(self._index.part_digests)
        return _DONE if known else self.when_reached(entry, 0, PART_SIZE)

    def when_complete(self) -> Future[None]:
        """Ask for everything."""
        return self._frontier.when(END)

    # Answers

    def entries(self) -> tuple[Entry, ...]:
        """Give all entries, manifests first, as they sort; `when_listed` must be done."""
        size = self._sealed_size
        if size is None:
            raise BundlefsError("the list of parts is not known yet")
        return (*self._names.manifests(), *(Part(number) for number in range(part_count(size))))

    def known_size(self, entry: Entry) -> int | None:
        """Give the size of an entry in bytes, or None if it is not known yet.

        Raises:
            UnknownNameError: it has turned out not to exist.
        """
        size = self._sealed_size
        if isinstance(entry, ManifestFile):
            return None if size is None else self._manifests.size(entry, size)
        if self._beyond(entry):
            raise UnknownNameError(f"the bundle ends before {self.name(entry)}")
        if size is None and self._index.position < entry.span.stop:
            return None
        return PART_SIZE if size is None else min(PART_SIZE, size - entry.span.start)

    def has_digest(self, entry: Entry) -> bool:
        """Tell whether it is a part: manifests have no digest of their own."""
        return isinstance(entry, Part)

    def digest(self, entry: Entry) -> str:
        """Give the SHA-1 of a part, in hex; the part must be complete."""
        if isinstance(entry, ManifestFile):
            raise UnknownNameError("only parts have a digest of their own")
        if entry.number >= len(self._index.part_digests):
            raise UnknownNameError(f"the bundle ends before {self.name(entry)}")
        return self._index.part_digests[entry.number]

    def read_fast(self, entry: Entry, offset: int, length: int) -> memoryview | None:
        """Give what `read` gives if that takes no time, else None."""
        if self._frontier.error is not None or isinstance(entry, ManifestFile):
            return None
        # What is in memory is the bundle's, but the image may have gone another way meanwhile.
        self._watch.glance()
        span = self._part_span(entry, offset, length)
        return None if self._index.position < span.stop else self._stream.read_fast(span)

    def read(self, entry: Entry | str, offset: int, length: int) -> memoryview:
        """Give the bytes of an entry or of the file of a name, short only at its end. Waits.

        Raises:
            UnknownNameError: there is no such file.
            UsageError: `offset` or `length` is negative, or no whole number.
            ImageChangedError: the image is not what it was.
        """
        if isinstance(entry, str):
            entry = self.find(entry)
        offset, length = whole("offset", offset), whole("length", length)
        return self.when_read(entry, offset, length).result()

    def when_read(self, entry: Entry, offset: int, length: int) -> Future[memoryview]:
        """Ask for what `read` gives; the future holds it."""
        found = chain(
            self.when_reached(entry, offset, length), lambda _: self._asked(entry, offset, length)
        )
        # After the read, so that no change can slip in between.
        checked = chain(found, lambda data: self._checks.submit(partial(self._checked, data)))
        checked.add_done_callback(self._fail_with)
        return self._promises.promise(checked)

    def _asked(self, entry: Entry, offset: int, length: int) -> Future[memoryview]:
        if isinstance(entry, ManifestFile):
            manifest = self._rendering.submit(partial(self._manifests.text, entry))
            return chain(manifest, lambda text: done(memoryview(text)[offset : offset + length]))
        span = self._part_span(entry, offset, length)
        return self._stream.when_read(span) if span.length else done(memoryview(b""))

    def _checked(self, data: memoryview) -> memoryview:
        self._watch.check()
        return data

    def _fail_with(self, found: Future[memoryview]) -> None:
        """Fail for good: a reader was promised bytes that cannot be made, so trust no others."""
        error = failure(found)
        if isinstance(error, Exception) and not isinstance(error, UnknownNameError):
            self._frontier.fail(error)

    def _part_span(self, part: Part, offset: int, length: int) -> Span:
        size = self.known_size(part)
        end = part.span.start + (PART_SIZE if size is None else size)
        start = min(part.span.start + offset, end)
        return Span(start, min(start + length, end))

    # State

    def fail(self, error: BaseException) -> None:
        """Fail for good."""
        self._frontier.fail(error)

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

    def idle(self) -> bool:
        """Tell whether nothing is under way."""
        return not (self._frontier.running or self._stream.busy)

    def failure(self) -> BaseException | None:
        """Give the error if it has failed for good."""
        return self._frontier.error

    def when_checked(self) -> Future[None]:
        """Ask for a `check`; the future holds its error."""
        error = self._frontier.error
        if error is None:
            return self._promises.promise(self._checks.submit(self.check))
        return failed(error) if isinstance(error, ImageChangedError) else _DONE

    def look(self) -> Future[None]:
        """Have a thread `check`; the future is done when `status` tells what was found."""
        return self._watch.look() if self._frontier.error is None else _DONE

    def status(self) -> Status:
        """Tell where the bundle stands; never waits."""
        # In this order: a pass that ends in between is complete, not idle.
        running = "indexing" if self._frontier.running else "idle"
        error, totals = self._frontier.error, self._index.totals
        return Status(
            phase="failed" if error else "complete" if totals else running,
            image=str(self._image.path),
            image_size=self._image.size,
            image_bytes_read=self._image.bytes_read,
            tar_size=self._maker.size,
            tar_bytes_done=min(self._index.blocks * BLOCK_SIZE, self._maker.size),
            parts_made=len(self._index.part_digests),
            sealed_bytes=self._index.position,
            blocks_compressed=self._maker.made,
            seconds=round(time.monotonic() - self._started, 3),
            pass_seconds=round(self._frontier.seconds, 3),
            storage_silent_seconds=round(self._maker.silent_seconds, 1),
            error=str(error) or type(error).__name__ if error else None,
        )

    def sealed_before(self) -> Sealed:
        """Tell what an earlier mount has sealed; to be asked before anything else."""
        index = self._index
        blocks = index.blocks
        digests, position = tuple(index.part_digests), index.position
        return Sealed(blocks, digests, position, index.totals is not None)

    def space(self) -> tuple[int, int]:
        """Give the size of the image, and of all parts as far as they are made; bytes."""
        return self._image.size, self._index.position

    def close(self) -> None:
        """Let go of the image. Whoever waits gets an error."""
        self._frontier.fail(ClosedError("the bundle is being closed"))
        self._stream.close()
        self._promises.close()
        self._state.save()
        self._owned.close()
