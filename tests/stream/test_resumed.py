"""A pass that is broken off anywhere and taken up by another process ends in the same bundle.

What a state file would hold after each block is collected from one uninterrupted pass;
then each of these is loaded into a new bundle, which has to finish as the first did.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bundlefs.base.errors import ImageChangedError
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import Part
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.store import BlockStore
from bundlefs.image.raw import Image
from bundlefs.keys.regions import recipients
from bundlefs.manifest.write import Metadata
from bundlefs.state.index import PART_SIZE, IndexDump
from bundlefs.state.memory import State
from tests.stream.engine import (
    CREATED,
    HANG,
    MANIFEST,
    NANOSECONDS,
    SECRET,
    assembled,
    read_parts,
    user_keys,
)
from tests.support import images
from tests.support.tools import ACCOUNT

MIB = images.MIB
# The sealed stream ends in the second part, so that some cuts are in each of them.
DATA = {
    0: b"".join(images.noise(7 * MIB)),
    8 * MIB + 4096: images.text(3 * MIB),
    12 * MIB: b"".join(images.noise(4 * MIB, "later")),
}
SIZE = 18 * MIB + 77
BLOCKS = 15


class Recorded(State):
    """Keeps what would be saved after each block."""

    def __init__(self, extents: tuple[Span, ...] | None) -> None:
        super().__init__(extents, SECRET, CREATED * NANOSECONDS)
        self.dumps = [self.index.dump()]

    def progress(self) -> None:
        """Take the dump that a save would write now."""
        self.dumps.append(self.index.dump())


def recipe(level: int, *, sparse: bool) -> Recipe:
    return Recipe(
        prefix="image",
        metadata=Metadata(ACCOUNT),
        recipients=recipients("image", [], []),
        user_keys=user_keys(),
        level=level,
        sparse=sparse,
    )


@contextmanager
def bundle_of(path: Path, made: Recipe, state: State, *, jobs: int = 2) -> Iterator[Bundle]:
    with assembled(path, made, Engine(Workers(jobs), BlockStore(0)), state) as bundle:
        yield bundle


@dataclass(frozen=True, slots=True)
class Whole:
    """A bundle that was made in one go, and the index after each of its blocks."""

    image: Path
    recipe: Recipe
    extents: tuple[Span, ...] | None
    dumps: list[IndexDump]
    parts: list[bytes]
    manifest: bytes

    @property
    def last(self) -> IndexDump:
        return self.dumps[-1]

    def state_at(self, blocks: int) -> State:
        state = State(self.extents, SECRET, CREATED * NANOSECONDS)
        state.index.load(self.dumps[blocks])
        return state


VARIANTS = [(0, True), (1, False), (6, True)]


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    level, sparse = request.param
    image = images.sparse_image(tmp_path_factory.mktemp("whole") / "disk", SIZE, DATA)
    made = recipe(level, sparse=sparse)
    with Image.open(image) as opened:
        extents = opened.extents() if sparse else None
    state = Recorded(extents)
    with bundle_of(image, made, state) as bundle:
        parts = read_parts(bundle)
        manifest = bytes(bundle.read(MANIFEST, 0, MIB))
    return Whole(image, made, extents, state.dumps, parts, manifest)


def stripped(manifest: bytes) -> bytes:
    """Take out what is encrypted or signed anew each time: RSA's hex, 128 digits and more."""
    return re.sub(rb">[0-9a-f]{128,}<", b"><", manifest)


def cut_part(state: State) -> int:
    """Count the blocks of the part that the cut went through: they are made again for its SHA-1."""
    end = state.index.position
    start = end // PART_SIZE * PART_SIZE
    return state.index.block_at(end - 1) - state.index.block_at(start) + 1 if start < end else 0


def test_finished_from_every_block_on(whole: Whole) -> None:
    assert len(whole.dumps) >= BLOCKS, "one after each block, and the empty one"
    for blocks in range(len(whole.dumps)):
        state = whole.state_at(blocks)
        again = 0 if state.index.totals else cut_part(state)
        with bundle_of(whole.image, whole.recipe, state) as bundle:
            bundle.when_complete().result(HANG)
            assert state.index.dump() == whole.last, f"taken up after {blocks} blocks"
            left = whole.last.blocks - blocks
            assert bundle.status().blocks_compressed == left + again


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_read_after_it_is_taken_up(whole: Whole, share: float) -> None:
    blocks = int(share * (len(whole.dumps) - 1))
    with bundle_of(whole.image, whole.recipe, whole.state_at(blocks)) as bundle:
        assert read_parts(bundle) == whole.parts
        assert stripped(bytes(bundle.read(MANIFEST, 0, MIB))) == stripped(whole.manifest)


def test_what_was_sealed_is_read_without_the_rest(whole: Whole) -> None:
    blocks = len(whole.dumps) - 2
    with bundle_of(whole.image, whole.recipe, whole.state_at(blocks)) as bundle:
        assert bundle.read(Part(0), 0, MIB) == whole.parts[0][:MIB]
        status = bundle.status()
        assert status.phase == "idle"
        assert status.image_bytes_read < 5 * MIB


def test_a_complete_index_reads_nothing_to_be_listed(whole: Whole) -> None:
    with bundle_of(whole.image, whole.recipe, whole.state_at(-1)) as bundle:
        bundle.when_complete().result(HANG)
        sizes = [bundle.known_size(entry) for entry in bundle.entries()[1:]]
        assert sizes == [len(part) for part in whole.parts]
        assert (bundle.status().image_bytes_read, bundle.status().blocks_compressed) == (0, 0)


def flipped(image: Path, offset: int) -> None:
    with image.open("r+b") as stream:
        stream.seek(offset)
        [old] = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([old ^ 1]))


@pytest.fixture
def spoilt(whole: Whole, tmp_path: Path) -> Callable[[int], Path]:
    """Copy the image with one byte changed; as on a block device, no stat tells."""

    def make(offset: int) -> Path:
        image = Path(shutil.copy(whole.image, tmp_path / "disk"))
        flipped(image, offset)
        return image

    return make


@pytest.mark.parametrize("blocks", [2, 10, -2])
def test_taken_up_over_an_image_that_is_another(
    whole: Whole, spoilt: Callable[[int], Path], blocks: int
) -> None:
    """What has been sealed is read again, to be digested, and is held against its CRC."""
    image = spoilt(MIB + 5)
    with bundle_of(image, whole.recipe, whole.state_at(blocks)) as bundle:
        with pytest.raises(
            ImageChangedError, match=r"block 1, at offset 1048576 of its tar stream"
        ):
            bundle.when_complete().result(HANG)
        assert bundle.status().phase == "failed"


def test_complete_over_an_image_that_is_another(
    whole: Whole, spoilt: Callable[[int], Path]
) -> None:
    """Nothing is read again before it is asked for; then the block that changed is refused."""
    image = spoilt(3 * MIB)
    with bundle_of(image, whole.recipe, whole.state_at(-1)) as bundle:
        assert bundle.read(Part(0), 0, MIB) == whole.parts[0][:MIB]
        for _ in range(2):
            with pytest.raises(ImageChangedError, match=r"had CRC-32 .* and has"):
                bundle.read(Part(0), 3 * MIB, 2 * MIB)
        with pytest.raises(ImageChangedError):
            bundle.read(Part(0), 0, MIB)


def prefix(whole: IndexDump, part: IndexDump) -> IndexDump:
    """Cut a whole index to the length of another, as far as its arrays go."""
    return replace(
        part,
        offsets=whole.offsets[: len(part.offsets)],
        crcs=whole.crcs[: len(part.crcs)],
        states=whole.states[: len(part.states)],
        part_digests=whole.part_digests[: len(part.part_digests)],
    )


def test_dumped_at_any_moment_while_it_grows(whole: Whole) -> None:
    """A save may come from a reader's thread: it must find a whole prefix."""
    state = State(whole.extents, SECRET, CREATED * NANOSECONDS)
    dumps: list[IndexDump] = []
    done = threading.Event()

    def dump() -> None:
        while not done.is_set():
            dumps.append(state.index.dump())

    thread = threading.Thread(target=dump)
    with bundle_of(whole.image, whole.recipe, state) as bundle:
        thread.start()
        bundle.when_complete().result(HANG)
        done.set()
        thread.join()
    assert len(set(dumps)) > 1, "all dumps were taken at one moment"
    for one in set(dumps):
        assert one == prefix(whole.last, one)
        assert len(one.offsets) // 8 == len(one.crcs) // 4 + 1 == len(one.states) // 32
        assert one.totals in (None, whole.last.totals)
        assert (one.totals is not None) == (one.blocks == whole.last.blocks)
        assert one == whole.dumps[one.blocks]


def test_closed_while_it_is_taken_up(whole: Whole) -> None:
    """An unmount does not wait until all that was sealed is read again."""
    state = whole.state_at(-2)
    with bundle_of(whole.image, whole.recipe, state, jobs=1) as bundle:
        bundle.when_complete()
    assert state.index.dump() in (whole.dumps[-2], whole.last)
