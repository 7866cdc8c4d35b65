"""`Export` that goes on: what is there of the parts is kept, what is none of them is replaced."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundlefs import DirectorySink
from bundlefs.state.index import Index
from tests.stream.badsinks import NotingSink, Plan, parts_in
from tests.stream.engine import HANG, SECRET
from tests.stream.exports import MANIFESTS, blocks_of, exporting, state_of
from tests.support.folders import contents

MIB = 1 << 20


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


def test_a_failure_while_parts_are_written_again(noisy: Path, parts: dict[str, bytes]) -> None:
    sink = NotingSink(Plan("write", 15))
    state = state_of(noisy, index_after(noisy, 3))
    with exporting(noisy, sink, state) as run, pytest.raises(OSError, match="No space"):
        run.export.run()
    assert (sink.files, sink.loose) == (first(parts, 1), [])
