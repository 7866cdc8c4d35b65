"""What a bundle answers, what it has to be made for that, and what it is called."""

import hashlib
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from bundlefs.base.errors import BundlefsError, UnknownNameError
from bundlefs.bundling.names import Part
from bundlefs.state.index import PART_SIZE
from tests.stream.engine import (
    HANG,
    MANIFEST,
    Setting,
    opened,
    parts_of,
)
from tests.support import images

MIB = 1 << 20
KIB = 1 << 10
PLENTY = 256 * MIB
AHEAD = 2 * 2 + 2
"""Blocks under way before the frontier, for two jobs."""


# --- what is known when ---


def test_making_a_bundle_reads_nothing(noisy: Path) -> None:
    for level in (0, 6):
        with opened(noisy, Setting(level, sparse=False)) as bundle:
            status = bundle.status()
            assert (status.phase, status.image_bytes_read, status.blocks_compressed) == (
                "idle",
                0,
                0,
            )
            assert bundle.find("image.part.00") == Part(0)


def test_level_0_knows_everything_at_once(noisy: Path) -> None:
    with opened(noisy, Setting(0)) as bundle:
        assert bundle.when_listed().done()
        entries = bundle.entries()
        sizes = {bundle.name(entry): bundle.known_size(entry) for entry in entries}
        assert list(sizes) == ["image.manifest.xml", *(f"image.part.{n:02}" for n in range(7))]
        assert all(bundle.when_sized(entry).done() for entry in entries)
        assert bundle.status().image_bytes_read == 0
        assert bundle.status().phase == "idle"
        bundle.when_complete().result(HANG)
        assert sizes == {
            bundle.name(entry): len(bundle.read(entry, 0, 1 << 30)) for entry in entries
        }


def test_other_levels_know_nothing_before_they_have_looked(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        assert bundle.known_size(Part(0)) is None
        assert bundle.known_size(MANIFEST) is None
        with pytest.raises(BundlefsError, match="not known yet"):
            bundle.entries()
        assert bundle.status().image_bytes_read == 0


def test_one_part_costs_no_more_than_itself(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        for number in (0, 2):
            bundle.when_sized(Part(number)).result(HANG)
            assert bundle.known_size(Part(number)) == PART_SIZE
            assert bundle.known_size(Part(number + 1)) is None
            status = bundle.status()
            assert status.image_bytes_read <= (number + 1) * PART_SIZE + (AHEAD + 1) * MIB
            assert status.parts_made == number + 1


def test_a_digest_is_known_with_its_part(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        bundle.when_digested(Part(1)).result(HANG)
        data = bundle.read(Part(1), 0, PART_SIZE)
        assert bundle.digest(Part(1)) == hashlib.sha1(data).hexdigest()
        assert bundle.status().phase in ("idle", "indexing")
        assert bundle.known_size(MANIFEST) is None


def test_sizes_never_change(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        seen: list[list[int | None]] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                seen.append([bundle.known_size(Part(number)) for number in range(6)])

        watcher = threading.Thread(target=watch)
        watcher.start()
        bundle.when_complete().result(HANG)
        ended.set()
        watcher.join()
        final = [bundle.known_size(Part(number)) for number in range(6)]
    for before, after in pairwise([*seen, final]):
        for one, other in zip(before, after, strict=True):
            assert one in (None, other)


def test_the_status_moves_forward_only(noisy: Path) -> None:
    with opened(noisy, Setting(6)) as bundle:
        statuses = [bundle.status()]
        done = bundle.when_complete()
        while not done.done():
            statuses.append(bundle.status())
        statuses.append(bundle.status())
    for one, other in pairwise(statuses):
        for name in ("tar_bytes_done", "parts_made", "sealed_bytes", "image_bytes_read"):
            assert getattr(one, name) <= getattr(other, name)
    assert statuses[0].phase == "idle"
    assert statuses[-1].phase == "complete"
    assert {status.phase for status in statuses[1:-1]} <= {"indexing", "complete"}
    assert statuses[-1].tar_bytes_done == statuses[-1].tar_size
    assert statuses[-1].parts_made == 7


# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "image", "image.part", "image.part.", "image.part.0", "image.part.000"),
        *(
            "image.part.+0",
            "image.part. 0",
            "image.part.0_0",
            "image.part.-1",
            "image.part.\u0660\u0660",
        ),
        *("image.part.00 ", "Image.part.00", "other.part.00", "image.part.00.part.00"),
        *("image.manifest.xm", "image.manifest.xml.", "manifest.xml", "image.part.07", "\udcff"),
        "image.part." + "9" * 244,
    ],
)
def test_names_of_nothing(noisy: Path, name: str) -> None:
    with opened(noisy, Setting(0)) as bundle, pytest.raises(UnknownNameError):
        bundle.find(name)


def test_every_name_leads_back(noisy: Path) -> None:
    with opened(noisy, Setting(1)) as bundle:
        parts_of(bundle)
        for entry in bundle.entries():
            assert bundle.find(bundle.name(entry)) == entry
        names = [bundle.name(entry) for entry in bundle.entries()]
        assert sorted(names) == names


@pytest.mark.parametrize(("gib", "name"), [(0.9, "image.part.00"), (2, "image.part.000")])
def test_a_number_is_as_wide_as_the_largest_may_be(tmp_path: Path, gib: float, name: str) -> None:
    image = images.sparse_image(tmp_path / "disk", int(gib * (1 << 30)), {})
    with opened(image, Setting(6, sparse=False)) as bundle:
        assert bundle.name(Part(0)) == name
        assert bundle.status().image_bytes_read == 0


def test_a_name_that_may_be_is_told_from_one_that_is_not(mixed: Path) -> None:
    with opened(mixed, Setting(6, sparse=False)) as bundle:
        maybe = [bundle.find(f"image.part.{number:02}") for number in range(2)]
        with pytest.raises(UnknownNameError):
            bundle.find("image.part.02")
        assert maybe == [Part(0), Part(1)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """30 MiB of zeros that are no hole: one part, though three are possible."""
    return images.tuned_image(tmp_path / "disk", 0, 30 * MIB)


def test_a_part_that_turns_out_not_to_be(small: Path) -> None:
    with opened(small, Setting(1)) as bundle:
        part = bundle.find("image.part.02")
        assert bundle.known_size(part) is None
        bundle.when_sized(part).result(HANG)
        for ask in (bundle.known_size, lambda part: bundle.find(bundle.name(part))):
            with pytest.raises(UnknownNameError):
                ask(part)
        assert [bundle.name(part) for part in parts_of(bundle)] == ["image.part.00"]


def test_reading_a_part_that_is_not_there_harms_no_other(small: Path) -> None:
    with opened(small, Setting(1)) as bundle:
        with pytest.raises(UnknownNameError):
            bundle.read(Part(2), 0, 1)
        assert bundle.status().phase == "complete"
        assert len(bundle.read(Part(0), 0, 100)) == 100


def test_a_part_that_is_not_there_has_no_digest(small: Path) -> None:
    with opened(small, Setting(1)) as bundle:
        bundle.when_digested(Part(2)).result(HANG)
        with pytest.raises(UnknownNameError):
            bundle.digest(Part(2))
