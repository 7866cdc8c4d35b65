"""Bundles without FUSE, as the tests of this folder want them: real images, fixed identity.

Nothing here checks anything. With one secret and one time, two bundles of an
image are the same bytes, so that what one gave can be held against the other.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import ManifestFile, Part
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.store import BlockStore, Spill
from bundlefs.image.raw import Image
from bundlefs.image.source import Source
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import Secret, UserKeys
from bundlefs.manifest.write import Metadata
from bundlefs.state.memory import State
from tests.support.tools import ACCOUNT

T = TypeVar("T")

SECRET = Secret(bytes(range(16)), bytes(range(16, 32)))
CREATED = 1_700_000_000
NANOSECONDS = 10**9
MANIFEST = ManifestFile(0)
HANG = 60
"""Seconds after which whoever waits is taken to hang."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a bundle is made and kept."""

    level: int = 1
    sparse: bool = True
    cache: int = 0
    spill: bool = False
    jobs: int = 2
    with_index: bool = False


@functools.cache
def user_keys() -> UserKeys:
    """Make a key pair, once for all tests."""
    return UserKeys.load(None, None, str)


@contextmanager
def opened(path: Path, setting: Setting) -> Iterator[Bundle]:
    """Open a bundle of the image at `path` for the length of a `with`."""
    recipe = Recipe(
        prefix="image",
        metadata=Metadata(ACCOUNT),
        recipients=recipients("image", [], []),
        user_keys=user_keys(),
        level=setting.level,
        sparse=setting.sparse,
        with_index=setting.with_index,
    )
    spill = Spill(path.parent) if setting.spill else None
    engine = Engine(Workers(setting.jobs), BlockStore(setting.cache, spill))
    with assembled(path, recipe, engine) as bundle:
        yield bundle


@contextmanager
def assembled(
    path: Path, recipe: Recipe, engine: Engine, state: State | None = None
) -> Iterator[Bundle]:
    """Put a bundle of the image at `path` together on an engine of its own."""

    def prepare(image: Source, _: ExitStack) -> tuple[Recipe, State]:
        extents = image.extents() if recipe.sparse else None
        return recipe, state or State(extents, SECRET, CREATED * NANOSECONDS + 1)

    with (
        Assembly(engine) as assembly,
        closing(assembly.bundle(Bundle, partial(Image.open, path), prepare)) as bundle,
    ):
        yield bundle


def parts_of(bundle: Bundle) -> list[Part]:
    """Give the parts of a bundle; moves the frontier to the end."""
    bundle.when_listed().result(HANG)
    return [entry for entry in bundle.entries() if isinstance(entry, Part)]


def read_parts(bundle: Bundle) -> list[bytes]:
    """Read every part whole."""
    return [bytes(bundle.read(part, 0, 1 << 30)) for part in parts_of(bundle)]


def manifest_of(bundle: Bundle) -> str:
    """Read the manifest; moves the frontier to the end."""
    bundle.when_sized(MANIFEST).result(HANG)
    return bytes(bundle.read(MANIFEST, 0, 1 << 20)).decode("ascii")


def in_threads(count: int, calls: Iterable[Callable[[], T]]) -> list[T]:
    """Make `calls` from `count` threads; give their results in order, or raise the first error.

    Raises:
        AssertionError: somebody hangs.
    """
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(call) for call in calls]
        hanging = wait(futures, HANG).not_done
        assert not hanging, f"{len(hanging)} of {len(futures)} calls hang"
        return [future.result() for future in futures]
