"""A bundle for programs: its files by name, in calls that wait.

It is the view that a mount shows, with the same bytes, sizes and errors; here nobody else waits
meanwhile, so each call returns when its answer is there.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bundlefs.base.checks import whole
from bundlefs.base.errors import BundlefsError
from bundlefs.base.workers import Workers, default_jobs
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.names import Entry
from bundlefs.bundling.recipe import EPHEMERAL, Recipe, check_prefix
from bundlefs.bundling.store import DEFAULT_CACHE_SIZE, BlockStore
from bundlefs.bundling.view import BundleView
from bundlefs.image.open import open_source
from bundlefs.image.source import Source
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import UserKeys, fingerprint
from bundlefs.manifest.write import Metadata
from bundlefs.state.memory import State

StateOf = Callable[[Source, Recipe, ExitStack], State]
"""Gives the state of a bundle, and enters what is to end with it."""


class Bundle(BundleView):
    """The files of one bundle by name. Thread-safe. A context manager that closes it."""

    def __init__(self, image: Source, recipe: Recipe, engine: Engine, state: State) -> None:
        super().__init__(image, recipe, engine, state)
        self._owned = ExitStack()

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
        state: State | StateOf | None = None,
        with_index: bool = False,
    ) -> Self:
        """Return the bundle of an image, to be read file by file; a context manager.

        Args:
            path: a file in any form that the mount takes, or a block device.
            metadata: what goes into the manifests.
            prefix: what the names of the files start with.
            regions: for which there is to be a manifest; the standard key alone by default.
            user_keys: whose private key can decrypt the bundle later.
            level: 0 (stored), 1 (fastest) to 9 (smallest).
            cache_size: bytes of memory for sealed blocks, 0 or more.
            state: secret and creation time, or what gives them for an image and its recipe; new
                ones by default.
            with_index: add an index, with which any host reads the bundle at random.

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
            user_key=fingerprint(user_keys.public) if user_keys else EPHEMERAL,
            with_index=with_index,
        )
        store = BlockStore(whole("cache_size", cache_size))
        with ExitStack() as stack:
            assembly = stack.enter_context(Assembly(Engine(Workers(default_jobs()), store)))
            bundle = assembly.bundle(
                cls,
                lambda: open_source(Path(path)),
                lambda image, held: (recipe, _state(state, image, recipe, held)),
            )
            bundle._owned = stack.pop_all()  # noqa: SLF001  # our own
        return bundle

    def names(self) -> tuple[str, ...]:
        """Return the names of all files; waits until they are known.

        Raises:
            ImageChangedError: the image is not what it was.
        """
        self.when_listed().result()
        self.check()
        return tuple(self.name(entry) for entry in self.entries())

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; waits until it is known.

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

    def read(self, entry: Entry | str, offset: int, length: int) -> memoryview:
        """Return the bytes of an entry or of the file of a name, short only at its end. Waits.

        Raises:
            UnknownNameError: there is no such file.
            UsageError: `offset` or `length` is negative, or no whole number.
            ImageChangedError: the image is not what it was.
        """
        if isinstance(entry, str):
            entry = self.find(entry)
        offset, length = whole("offset", offset), whole("length", length)
        return self.when_read(entry, offset, length).result()

    def close(self) -> None:
        """Let go of the image. Whoever waits gets an error. Again does nothing."""
        super().close()
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _state(given: State | StateOf | None, image: Source, recipe: Recipe, held: ExitStack) -> State:
    if given is None:
        return State(image.extents())
    return given if isinstance(given, State) else given(image, recipe, held)
