"""Exports of bundles with the identity of the other tests, for two regions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundlefs import Metadata, Sink, State
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.recipe import Recipe
from bundlefs.image.raw import Image
from bundlefs.keys.regions import recipients
from bundlefs.state.index import Index
from tests.stream.engine import CREATED, NANOSECONDS, SECRET, assembled, user_keys
from tests.support.tools import ACCOUNT

MIB = 1 << 20
REGIONS = ("us-east-1", "cn-north-1")
MANIFESTS = ["image.manifest.xml", "image.cn-north-1.manifest.xml"]


@dataclass(slots=True)
class Run:
    """A bundle that is about to be exported, and where to."""

    bundle: Bundle
    export: Export
    workers: Workers

    def compressed(self) -> int:
        """Give how many blocks were deflated so far."""
        return self.bundle.status().blocks_compressed


def state_of(path: Path, index: Index | None = None) -> State:
    """Make the state of an image, with what an earlier run has left in its index."""
    with Image.open(path) as image:
        state = State(image.extents(), SECRET, CREATED * NANOSECONDS + 1)
    if index:
        state.index.load(index.dump())
    return state


@contextmanager
def exporting(
    path: Path,
    sink: Sink,
    state: State | None = None,
    *,
    folder: Path | None = None,
    level: int = 1,
) -> Iterator[Run]:
    """Have a bundle ready to be exported to `sink`."""
    recipe = Recipe(
        prefix="image",
        metadata=Metadata(ACCOUNT),
        recipients=recipients("image", REGIONS, []),
        user_keys=user_keys(),
        level=level,
    )
    workers = Workers(2)
    tap = Tap(workers.lane(8))
    with assembled(path, recipe, Engine(workers, tap), state or state_of(path)) as bundle:
        yield Run(bundle, Export(bundle, tap, sink, folder), workers)


def blocks_of(run: Run) -> int:
    """Give how many blocks a bundle has."""
    return -(-run.bundle.status().tar_size // MIB)
