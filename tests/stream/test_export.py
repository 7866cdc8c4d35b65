"""`Export`: the files of a bundle in a sink, each block made once, the manifest last; resumable."""

import functools
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundlefs import DirectorySink, Metadata, Sink, State
from bundlefs.base.errors import ImageChangedError
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.names import Entry
from bundlefs.bundling.recipe import Recipe
from bundlefs.image.raw import Image
from bundlefs.keys.regions import recipients
from bundlefs.state.index import Index
from tests.stream.badsinks import NotingSink, Plan, bundle_to, no_room, parts_in
from tests.stream.engine import (
    CREATED,
    HANG,
    NANOSECONDS,
    SECRET,
    Setting,
    assembled,
    opened,
    read_parts,
    user_keys,
)
from tests.support import images
from tests.support.tools import ACCOUNT

MIB = 1 << 20
PROMPT = 10
"""Seconds within which an error must have come; it takes milliseconds."""
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


@pytest.fixture(scope="module")
def parts(noisy: Path) -> dict[str, bytes]:
    """What a mount shows of the image: seven parts."""
    with opened(noisy, Setting(level=1, cache=256 * MIB)) as bundle:
        return {f"image.part.{number:02}": data for number, data in enumerate(read_parts(bundle))}


def blocks_of(run: Run) -> int:
    return -(-run.bundle.status().tar_size // MIB)


# --- one pass ---


@pytest.mark.parametrize("level", [0, 1, 6])
def test_it_writes_what_a_mount_shows(mixed: Path, level: int) -> None:
    sink = NotingSink()
    with exporting(mixed, sink, level=level) as run:
        run.export.run()
        assert run.compressed() == blocks_of(run)
    with opened(mixed, Setting(level=level)) as bundle:
        assert parts_in(sink.files) == read_parts(bundle)


def test_each_block_is_made_once_and_the_image_read_once(
    noisy: Path, parts: dict[str, bytes]
) -> None:
    sink = NotingSink(pause=0.005)
    with exporting(noisy, sink) as run:
        run.export.run()
        status = run.bundle.status()
    assert status.blocks_compressed == -(-status.tar_size // MIB)
    assert status.image_bytes_read == status.image_size
    assert sink.loose == []
    assert sink.order == [*sorted(parts), *MANIFESTS], "parts in order, the manifests last"
    assert parts_in(sink.files) == list(parts.values())
    for number, data in enumerate(parts.values()):
        digest = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
        entry = b"<part index='%d'><filename>image.part.%02d</filename><digest algorithm='SHA1'>%s"
        for manifest in MANIFESTS:
            assert entry % (number, number, digest) in sink.files[manifest]


def test_writer_and_export_agree_where_there_are_no_holes(noisy: Path) -> None:
    ours, theirs = NotingSink(), NotingSink()
    with exporting(noisy, ours) as run:
        run.export.run()
    bundle_to(theirs, noisy.read_bytes())
    assert parts_in(ours.files) == parts_in(theirs.files)


# --- going on ---


@functools.cache
def index_after(noisy: Path, parts_made: int, extra: int = 0) -> Index:
    """Give the index of a run that was killed when it had sealed so much."""
    state = state_of(noisy)
    with exporting(noisy, NotingSink(), state) as run:
        run.bundle.when_reached(run.bundle.find("image.part.00"), 0, 1).result(HANG)
        target = parts_made * (10 << 20) + extra
        entry = run.bundle.entry(len(MANIFESTS) + target // (10 << 20))
        run.bundle.when_reached(entry, 0, target % (10 << 20) or 1).result(HANG)
    index = Index(SECRET.iv)
    index.load(state.index.dump())
    return index


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file has been written again."""

    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        stat = path.stat()
        return cls(stat.st_ino, stat.st_mtime_ns)


def laid_out(folder: Path, parts: dict[str, bytes]) -> dict[str, Stamp]:
    folder.mkdir(exist_ok=True)
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    return {name: Stamp.of(folder / name) for name in parts}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def first(parts: dict[str, bytes], count: int) -> dict[str, bytes]:
    return dict(list(parts.items())[:count])


@pytest.mark.parametrize(
    ("made", "extra"), [(0, 0), (0, 3 * MIB), (1, 0), (2, 5 * MIB + 1), (5, 9 * MIB), (6, 0)]
)
def test_a_broken_off_run_goes_on(
    made: int, extra: int, noisy: Path, parts: dict[str, bytes], tmp_path: Path
) -> None:
    index = index_after(noisy, made, extra)
    assert len(index.part_digests) >= made
    there = first(parts, made)
    stamps = laid_out(tmp_path / "dest", there)
    sink = DirectorySink(tmp_path / "dest")
    with exporting(noisy, sink, state_of(noisy, index), folder=sink.folder) as run:
        run.export.run()
        # At most those of the unfinished part, and of one that the sink had not got yet.
        assert run.compressed() <= blocks_of(run) - made * 10 + 1
    found = contents(sink.folder)
    assert sorted(found) == sorted([*parts, *MANIFESTS])
    assert {name: found[name] for name in parts} == parts
    assert {name: Stamp.of(sink.folder / name) for name in there} == stamps


@functools.cache
def complete_index(noisy: Path) -> Index:
    state = state_of(noisy)
    with exporting(noisy, NotingSink(), state) as run:
        run.export.run()
    index = Index(SECRET.iv)
    index.load(state.index.dump())
    return index


def flipped(data: bytes) -> bytes:
    return data[:5_000_000] + bytes([data[5_000_000] ^ 1]) + data[5_000_001:]


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "foreign": lambda path: path.write_bytes(bytes(10 << 20)),
    "a dead link": lambda path: linked(path, "nowhere"),
    "a device": lambda path: linked(path, "/dev/zero"),
    "a pipe": piped,
}


@pytest.mark.parametrize(
    ("damage", "complete"),
    [*((damage, False) for damage in DAMAGE), ("a bit", True), ("missing", True)],
)
def test_what_is_not_the_part_is_replaced(
    *, damage: str, complete: bool, noisy: Path, parts: dict[str, bytes], tmp_path: Path
) -> None:
    index = complete_index(noisy) if complete else index_after(noisy, 3, MIB)
    there = parts if complete else first(parts, 3)
    stamps = laid_out(tmp_path / "dest", there)
    DAMAGE[damage](tmp_path / "dest" / "image.part.01")
    sink = DirectorySink(tmp_path / "dest")
    with exporting(noisy, sink, state_of(noisy, index), folder=sink.folder) as run:
        run.export.run()
    found = contents(sink.folder)
    assert {name: found[name] for name in parts} == parts
    assert sorted(found) == sorted([*parts, *MANIFESTS])
    assert not (sink.folder / "image.part.01").is_symlink()
    del stamps["image.part.01"]
    assert {name: Stamp.of(sink.folder / name) for name in stamps} == stamps


def test_a_complete_bundle_costs_nothing(
    noisy: Path, parts: dict[str, bytes], tmp_path: Path
) -> None:
    stamps = laid_out(tmp_path / "dest", parts)
    sink = DirectorySink(tmp_path / "dest")
    with exporting(noisy, sink, state_of(noisy, complete_index(noisy)), folder=sink.folder) as run:
        run.export.run()
        assert (run.compressed(), run.bundle.status().image_bytes_read) == (0, 0)
    assert {name: Stamp.of(sink.folder / name) for name in parts} == stamps
    assert set(MANIFESTS) < set(contents(sink.folder))


def test_without_a_folder_to_look_into_all_is_written(noisy: Path, parts: dict[str, bytes]) -> None:
    sink = NotingSink()
    with exporting(noisy, sink, state_of(noisy, index_after(noisy, 3, MIB))) as run:
        run.export.run()
    assert parts_in(sink.files) == list(parts.values())


# --- failures ---

CALLS = {
    "the first part is not opened": Plan("open", 0),
    "the third part is not opened": Plan("open", 2),
    "the first write": Plan("write", 0),
    "a write in the middle": Plan("write", 25),
    "the first part is not closed": Plan("close", 0),
    "the last part is not closed": Plan("close", 5),
    "the manifest is not opened": Plan("open", 6),
    "the second manifest is not closed": Plan("close", 8),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_failure_reaches_the_caller(case: str, noisy: Path, parts: dict[str, bytes]) -> None:
    plan, error = CALLS[case], no_room()
    sink = NotingSink(Plan(plan.call, plan.after, 1, error))
    start = time.monotonic()
    with exporting(noisy, sink) as run, pytest.raises(OSError, match="No space") as raised:
        run.export.run()
    assert time.monotonic() - start < PROMPT
    assert raised.value is error
    assert sink.loose == []
    assert {name: data for name, data in sink.files.items() if ".part." in name}.items() <= (
        parts.items()
    )
    if "manifest" not in case:
        assert not [name for name in sink.files if "manifest" in name]
    sink.plan = Plan()
    with exporting(noisy, sink) as run:
        run.export.run()
    assert parts_in(sink.files) == list(parts.values())


def test_a_failure_while_parts_are_written_again(noisy: Path, parts: dict[str, bytes]) -> None:
    sink = NotingSink(Plan("write", 15))
    state = state_of(noisy, index_after(noisy, 3))
    with exporting(noisy, sink, state) as run, pytest.raises(OSError, match="No space"):
        run.export.run()
    assert (sink.files, sink.loose) == (first(parts, 1), [])


def test_what_the_sink_lost_is_not_made_up_for(noisy: Path) -> None:
    """One write fails, those on their way behind it would fill the part up: it must not be."""
    sink = NotingSink(Plan("write", 5, times=1), pause=0.03)
    with exporting(noisy, sink) as run:
        with pytest.raises(OSError, match="No space"):
            run.export.run()
        time.sleep(0.6)
        assert (sink.files, sink.loose) == ({}, [])


def test_an_image_that_changes_is_no_bundle(noisy: Path, tmp_path: Path) -> None:
    """The sink is slow: what is still on its way to it must not come in after the error."""
    image = tmp_path / "disk"
    shutil.copy(noisy, image)
    sink = NotingSink(pause=0.05)
    with exporting(image, sink) as run:
        threading.Timer(0.5, image.touch).start()
        with pytest.raises(ImageChangedError, match="mtime"):
            run.export.run()
        before = dict(sink.files)
        assert sink.loose == []
        time.sleep(1)
        assert (sink.files, sink.loose) == (before, [])
    assert not [name for name in sink.files if "manifest" in name]


def test_an_image_that_changes_before_the_manifest_has_none(noisy: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(noisy.read_bytes())
    sink = DirectorySink(tmp_path / "dest")
    with exporting(image, sink) as run:
        complete = run.bundle.entries

        def spoiled() -> tuple[Entry, ...]:
            image.with_name("other").write_bytes(b"another")
            image.with_name("other").rename(image)
            return complete()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.bundle, "entries", spoiled)
            with pytest.raises(ImageChangedError):
                run.export.run()
    assert len(contents(sink.folder)) > 0
    assert not list(sink.folder.glob("*.xml"))


def test_a_stuck_sink_holds_the_bundle_up(noisy: Path, parts: dict[str, bytes]) -> None:
    """Memory stays bounded: no more is sealed than the sink is behind."""
    sink = NotingSink()
    sink.gate.clear()
    with exporting(noisy, sink) as run:
        thread = threading.Thread(target=run.export.run)
        thread.start()
        time.sleep(1.5)
        assert 5 * MIB < run.bundle.status().sealed_bytes < 12 * MIB
        sink.gate.set()
        thread.join(HANG)
    assert parts_in(sink.files) == list(parts.values())


def test_images_of_one_byte_and_of_holes(tmp_path: Path) -> None:
    for path in (
        images.random_image(tmp_path / "one", 1),
        images.sparse_image(tmp_path / "hole", 100 * MIB, {}),
    ):
        sink = NotingSink()
        with exporting(path, sink) as run:
            run.export.run()
        with opened(path, Setting()) as bundle:
            assert parts_in(sink.files) == read_parts(bundle)
        assert sink.order == ["image.part.00", *MANIFESTS]
