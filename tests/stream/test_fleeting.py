"""Parts that are in memory for a moment are offered while they are, and the others are not."""

from dataclasses import replace
from pathlib import Path

import pytest

from bundlefs.bundling.names import Entry, Part
from bundlefs.state.index import PART_SIZE
from tests.stream.engine import HANG, MANIFEST, Setting, opened, read_parts
from tests.support import images

MIB = images.MIB
PARTS = 7


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = PARTS * PART_SIZE - 3 * MIB
    return images.random_image(tmp_path_factory.mktemp("fleeting") / "disk", size)


def test_each_whole_part_is_offered_in_order_and_in_time(image: Path) -> None:
    with opened(image, Setting()) as bundle:
        offered: dict[Entry, bytes] = {}
        fleeting = bundle.fleeting()
        assert fleeting

        def take(entry: Entry) -> None:
            assert bundle.known_size(entry) is not None
            pieces = fleeting.bytes_of(entry)
            assert pieces is not None
            offered[entry] = b"".join(pieces)

        fleeting.on_made(take)
        bundle.when_listed().result(HANG)
        made = bundle.status().blocks_compressed
        assert list(offered) == [Part(number) for number in range(PARTS)]
        assert bundle.status().blocks_made_again == 0
        # `is True`: pytest would explain at length how megabytes differ.
        assert (list(offered.values()) == read_parts(bundle)) is True
        status = bundle.status()
        assert status.blocks_made_again == status.blocks_compressed - made > 0


def test_who_comes_late_is_offered_the_last(image: Path) -> None:
    with opened(image, Setting()) as bundle:
        bundle.when_listed().result(HANG)
        fleeting = bundle.fleeting()
        assert fleeting
        still = [part for part in fleeting.on_made(print) if fleeting.bytes_of(part)]
        assert still[-2:] == [Part(PARTS - 2), Part(PARTS - 1)]
        assert fleeting.bytes_of(Part(0)) is None, "nothing is made to be offered"
        assert bundle.status().blocks_made_again == 0
        assert fleeting.bytes_of(MANIFEST) is None


@pytest.mark.parametrize(
    "setting", [Setting(cache=256 * MIB), Setting(spill=True)], ids=["memory", "disk"]
)
def test_what_is_kept_anyway_is_not_offered(image: Path, setting: Setting) -> None:
    with opened(image, setting) as bundle:
        bundle.when_listed().result(HANG)
        fleeting = bundle.fleeting()
        assert fleeting
        assert not any(fleeting.bytes_of(Part(number)) for number in range(PARTS))


def test_where_some_is_kept_the_rest_is_offered(image: Path) -> None:
    with opened(image, replace(Setting(), cache=25 * MIB)) as bundle:
        fleeting = bundle.fleeting()
        assert fleeting
        offered: list[Entry] = []

        def take(entry: Entry) -> None:
            if fleeting.bytes_of(entry):
                offered.append(entry)

        fleeting.on_made(take)
        bundle.when_listed().result(HANG)
        # The first two are kept whole, and the third in part.
        assert offered == [Part(number) for number in range(2, PARTS)]


def test_at_level_0_nobody_waits_for_a_pass(image: Path) -> None:
    with opened(image, Setting(0)) as bundle:
        assert bundle.fleeting() is None
