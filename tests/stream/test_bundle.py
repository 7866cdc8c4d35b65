"""Whole bundles of real images, undone by `tests.reference` and held against GNU tar; no FUSE."""

import hashlib
import re
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import Part
from bundlefs.state.index import PART_SIZE
from tests import reference
from tests.stream.engine import (
    CREATED,
    HANG,
    MANIFEST,
    SECRET,
    Setting,
    in_threads,
    manifest_of,
    opened,
    parts_of,
    read_parts,
)
from tests.support import images, oracles

MIB = 1 << 20
KIB = 1 << 10
PLENTY = 256 * MIB


@pytest.fixture(scope="module")
def tars(mixed: Path) -> dict[bool, bytes]:
    """The archives of the mixed image: GNU tar's with its holes left out, Python's plain one."""
    path = mixed.with_name("tar")
    oracles.gnu_tar(mixed, path, name="image", mtime=CREATED, sparse=True)
    plain = reference.tar_stream(mixed.read_bytes(), "image", CREATED)
    return {True: path.read_bytes(), False: plain}


def elements(manifest: str, name: str) -> list[str]:
    return re.findall(rf"<{name}(?: [^>]*)?>([^<]*)</{name}>", manifest)


# --- the bytes ---

WAYS = {
    "made again": Setting(cache=0, spill=False),
    "in memory": Setting(cache=PLENTY, spill=False),
    "on disk": Setting(cache=0, spill=True),
    "in both": Setting(cache=3 * MIB, spill=True),
}


# Every level is made twice once, and every way is gone with a codec of each kind.
GRID = [
    *((level, True, "made again") for level in range(10)),
    *((level, False, "on disk") for level in range(10)),
    *product((0, 1, 6), (True, False), ("in memory", "in both")),
    *((level, False, "made again") for level in (0, 1, 6)),
    *((level, True, "on disk") for level in (0, 1, 6)),
]


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("level", "sparse", "way"), GRID)
def test_stock_tools_undo_it(
    mixed: Path, tars: dict[bool, bytes], level: int, way: str, *, sparse: bool
) -> None:
    with opened(mixed, replace(WAYS[way], level=level, sparse=sparse)) as bundle:
        parts = read_parts(bundle)
        made = bundle.status().blocks_compressed
        # `is True`: pytest would explain at length how megabytes differ.
        assert (reference.unbundle(parts, SECRET.key, SECRET.iv) == tars[sparse]) is True
        assert (read_parts(bundle) == parts) is True
        again = bundle.status().blocks_compressed - made
    assert (again > 0) is (way == "made again")
    assert len(parts) == 2


def test_the_image_is_in_it(mixed: Path, tars: dict[bool, bytes]) -> None:
    for tar in tars.values():
        assert (reference.untar(tar) == mixed.read_bytes()) is True


@pytest.mark.parametrize("sparse", [True, False])
def test_the_manifest_tells_the_truth(mixed: Path, *, sparse: bool) -> None:
    with opened(mixed, Setting(6, sparse=sparse)) as bundle:
        parts = read_parts(bundle)
        text = manifest_of(bundle)
        assert bundle.known_size(MANIFEST) == len(text)
        digests = [bundle.digest(part) for part in parts_of(bundle)]
        assert [bundle.known_size(part) for part in parts_of(bundle)] == list(map(len, parts))
    hashed = [hashlib.sha1(part).hexdigest() for part in parts]
    whole = hashlib.sha1(reference.unbundle(parts, SECRET.key, SECRET.iv)).hexdigest()
    assert digests == hashed
    assert elements(text, "digest") == [whole, *hashed]
    assert elements(text, "bundled_size") == [str(sum(map(len, parts)))]
    assert elements(text, "size") == [str(mixed.stat().st_size)]
    assert elements(text, "filename") == ["image.part.00", "image.part.01"]


# GNU tar's archives are multiples of 10,240 bytes; these are the last size of one record
# count and the first of the next, at either side of a block.
UNDER_A_BLOCK = 102 * 10240 - 1536
SIZES = [
    *(1, 511, 512, 513, 10240 - 1536, 10240 - 1535),
    *(UNDER_A_BLOCK, UNDER_A_BLOCK + 1, MIB - 1, MIB, MIB + 1, 2 * MIB),
    *(PART_SIZE - 20480, PART_SIZE - 10240, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1),
]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_boundary(tmp_path: Path, size: int, level: int) -> None:
    image = images.random_image(tmp_path / "disk", size)
    with opened(image, Setting(level)) as bundle:
        parts = read_parts(bundle)
        assert [bundle.known_size(part) for part in parts_of(bundle)] == list(map(len, parts))
        assert sum(map(len, parts)) == int(elements(manifest_of(bundle), "bundled_size")[0])
    expected = reference.tar_stream(image.read_bytes(), "image", CREATED)
    assert (reference.unbundle(parts, SECRET.key, SECRET.iv) == expected) is True
    assert reference.cut(b"".join(parts)) == parts


@pytest.mark.parametrize("level", [0, 6])
def test_nothing_but_a_hole(tmp_path: Path, level: int) -> None:
    image = images.sparse_image(tmp_path / "disk", 40 * MIB + 3, {})
    for sparse in (True, False):
        with opened(image, Setting(level, sparse=sparse)) as bundle:
            tar = reference.unbundle(read_parts(bundle), SECRET.key, SECRET.iv)
            assert (bundle.status().image_bytes_read == 0) is sparse
        assert reference.untar(tar) == bytes(40 * MIB + 3)


def test_one_secret_and_time_give_one_bundle(mixed: Path) -> None:
    for level in (0, 1, 6):
        found = []
        for jobs in (1, 5):
            with opened(mixed, Setting(level, jobs=jobs)) as bundle:
                found.append(read_parts(bundle))
        assert found[0] == found[1]


# --- readers ---

OFFSETS = st.integers(0, PART_SIZE + 10) | st.sampled_from(
    [0, 1, MIB - 1, MIB, PART_SIZE - 1, PART_SIZE]
)
LENGTHS = st.integers(0, 300_000) | st.sampled_from([0, 1, 128 * KIB, MIB, PART_SIZE])
READS = st.lists(
    st.tuples(st.integers(0, 1), OFFSETS, LENGTHS, st.booleans()), min_size=16, max_size=48
)


@pytest.fixture(scope="module")
def references(mixed: Path) -> dict[int, list[bytes]]:
    """The parts of the mixed image by level, undone and found right."""
    found = {}
    for level in (0, 1, 6):
        with opened(mixed, Setting(level, cache=PLENTY)) as bundle:
            found[level] = read_parts(bundle)
        tar = reference.unbundle(found[level], SECRET.key, SECRET.iv)
        assert (reference.untar(tar) == mixed.read_bytes()) is True
    return found


def read_any_way(bundle: Bundle, number: int, offset: int, length: int, *, fast: bool) -> bytes:
    """Read as the file system does: fast where that can be, else after waiting."""
    data = bundle.read_fast(Part(number), offset, length) if fast else None
    return bytes(bundle.read(Part(number), offset, length) if data is None else data)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("level", "complete"), list(product([0, 1, 6], [False, True])))
def test_any_read_is_a_slice_of_the_whole(
    mixed: Path, references: dict[int, list[bytes]], level: int, *, complete: bool
) -> None:
    parts = references[level]

    @settings(max_examples=8, deadline=None)
    @given(READS, st.sampled_from([0, 3 * MIB, PLENTY]), st.booleans())
    def check(reads: list[tuple[int, int, int, bool]], cache: int, spill: bool) -> None:  # noqa: FBT001 - drawn by position
        with opened(mixed, Setting(level, cache=cache, spill=spill)) as bundle:
            if complete:
                bundle.when_complete().result(HANG)
            calls = [
                partial(read_any_way, bundle, number, offset, length, fast=fast)
                for number, offset, length, fast in reads
            ]
            found = in_threads(16, calls)
        for (number, offset, length, _), data in zip(reads, found, strict=True):
            assert (data == parts[number][offset : offset + length]) is True

    check()


def test_reading_every_part_again_compresses_nothing_more(noisy: Path) -> None:
    for cache, spill in ((PLENTY, False), (0, True)):
        with opened(noisy, Setting(1, cache=cache, spill=spill)) as bundle:
            bundle.when_complete().result(HANG)
            blocks = -(-bundle.status().tar_size // MIB)
            assert bundle.status().blocks_compressed == blocks
            in_threads(4, [partial(bundle.read, part, 0, PART_SIZE) for part in parts_of(bundle)])
            manifest_of(bundle)
            assert bundle.status().blocks_compressed == blocks


def read_range(bundle: Bundle, part: Part, start: int, stop: int) -> None:
    """Read as the kernel asks: 128 KiB at a time."""
    for offset in range(start, stop, 128 * KIB):
        length = min(128 * KIB, stop - offset)
        assert len(read_any_way(bundle, part.number, offset, length, fast=True)) == length


def test_the_ranges_of_one_part_make_no_block_twice(noisy: Path) -> None:
    """aws-cli reads 0 to 8 and 8 to 10 MiB of a part at a time; rclone reads it twice."""
    with opened(noisy, Setting(1)) as bundle:
        parts = parts_of(bundle)
        made = bundle.status().blocks_compressed
        for part in parts[:3]:
            ranges = ((0, 8 * MIB), (8 * MIB, PART_SIZE), (0, PART_SIZE), (4 * MIB, PART_SIZE))
            in_threads(4, [partial(read_range, bundle, part, *span) for span in ranges])
            now = bundle.status().blocks_compressed
            # A part spans 10 MiB of bytes that are a bit more than their MiB of image each.
            assert now - made <= 11
            made = now


def test_ten_parts_at_a_time_make_few_blocks_twice(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        parts = parts_of(bundle)[:-1]
        made = bundle.status().blocks_compressed
        ranges = ((0, 8 * MIB), (8 * MIB, PART_SIZE))
        in_threads(
            12, [partial(read_range, bundle, part, *span) for part in parts for span in ranges]
        )
        # The recent blocks of so many readers push each other out now and then.
        assert bundle.status().blocks_compressed - made <= 15 * len(parts)
