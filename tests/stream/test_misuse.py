"""Offsets, lengths, sizes and the like that cannot be are refused, and never taken for others."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bundlefs import Bundle, BundleWriter, DirectorySink, MemorySink, Metadata, State, UserKeys
from bundlefs.base.errors import InconsistentError, UsageError
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Engine
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.names import Part
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.sinks import PartWriter
from bundlefs.image.raw import Image
from bundlefs.keys.regions import recipients
from bundlefs.state.index import PART_SIZE
from bundlefs.unbundling.opened import OpenedBundle, open_bundle
from tests.stream.engine import HANG, user_keys
from tests.support import images
from tests.support.tools import ACCOUNT, run

MIB = 1 << 20
HUGE = 1 << 70
NO_NUMBERS = [-1, -(PART_SIZE + 5), 1.0, 0.5, float("nan"), True, False, "1", None, HUGE]


class Index:
    """What numpy's numbers are: no int, and as good as one."""

    def __index__(self) -> int:
        return 5


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("misuse") / "disk", 12 * MIB)


@pytest.fixture(scope="module")
def bundle(image: Path) -> Iterator[Bundle]:
    made = Bundle.from_image(image, Metadata(ACCOUNT), user_keys=user_keys(), level=0)
    with made:
        made.when_complete().result(HANG)
        yield made


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedBundle]:
    folder = tmp_path_factory.mktemp("opened")
    run(["openssl", "genrsa", "-out", folder / "key.pem", "2048"])
    keys = UserKeys.load(folder / "key.pem", None)
    with BundleWriter("image", MIB, DirectorySink(folder), user_keys=keys) as writer:
        writer.write(bytes(range(256)) * 4096)
    writer.write_manifest(Metadata(ACCOUNT))
    with open_bundle(folder / "image.manifest.xml", folder / "key.pem") as opened:
        yield opened


def refused(value: object, call: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    shown = f"{value:,}" if type(value) is int else repr(value)
    assert shown in str(caught.value) or str(value) in str(caught.value)


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", ["image.part.00", "image.part.01", "image.manifest.xml"])
def test_offset_and_length_in_a_bundle(bundle: Bundle, name: str, value: Any) -> None:  # noqa: ANN401
    refused(value, lambda: bundle.read(name, value, 5))
    refused(value, lambda: bundle.read(name, 0, value))
    # No reader of before or after has harm of it.
    assert bundle.status().phase == "complete"
    assert len(bundle.read(name, 0, 5)) == 5


def test_numbers_that_are_no_int(bundle: Bundle, disk: OpenedBundle) -> None:
    five: Any = Index()
    name = "image.part.01"
    assert bundle.read(name, five, five) == bundle.read(name, 5, 5)
    assert disk.read(five, five) == bytes(range(5, 10))


def test_behind_the_end_is_nothing(bundle: Bundle, disk: OpenedBundle) -> None:
    for name in bundle.names():
        assert bytes(bundle.read(name, bundle.size(name), 5)) == b""
        assert bytes(bundle.read(name, 1 << 60, 1 << 60)) == b""
    assert disk.read(MIB, 5) == disk.read(1 << 60, 5) == b""
    assert disk.read(MIB - 1, 1 << 60) == b"\xff"


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_offset_and_length_in_an_opened_bundle(disk: OpenedBundle, value: Any) -> None:  # noqa: ANN401
    refused(value, lambda: disk.read(value, 5))
    refused(value, lambda: disk.read(0, value))


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0])
@pytest.mark.parametrize("name", ["size", "jobs"])
def test_a_writer_s_size_and_jobs(name: str, value: Any) -> None:  # noqa: ANN401
    given: dict[str, Any] = {"size": 1, name: value}
    if (name, value) == ("jobs", None):
        return  # which is what it is by default
    refused(value, lambda: BundleWriter("image", sink=MemorySink(), user_keys=user_keys(), **given))


@pytest.mark.parametrize("value", [*NO_NUMBERS, 10])
def test_a_level(image: Path, value: Any) -> None:  # noqa: ANN401
    refused(
        value, lambda: BundleWriter("image", 1, MemorySink(), level=value, user_keys=user_keys())
    )
    metadata = Metadata(ACCOUNT)
    refused(value, lambda: Bundle.from_image(image, metadata, level=value, user_keys=user_keys()))


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_the_size_of_a_cache_and_a_time(image: Path, value: Any) -> None:  # noqa: ANN401
    metadata = Metadata(ACCOUNT)
    refused(
        value, lambda: Bundle.from_image(image, metadata, cache_size=value, user_keys=user_keys())
    )
    if value is not None:
        refused(value, lambda: State(None, created_ns=value))


def test_a_prefix(image: Path) -> None:
    with pytest.raises(UsageError, match="prefix"):
        Bundle.from_image(image, Metadata(ACCOUNT), prefix="../image", user_keys=user_keys())


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1, PART_SIZE - 1])
def test_where_parts_begin(value: Any) -> None:  # noqa: ANN401
    refused(value, lambda: PartWriter(MemorySink(), str, value))


def test_a_span_that_ends_before_it_begins() -> None:
    with pytest.raises(ValueError, match="from 5 back to 3"):
        Span(5, 3)


def test_a_block_that_nobody_took() -> None:
    """It would be missing from the parts, and all behind it in a wrong place."""
    with Workers(2) as workers:
        tap = Tap(workers.lane(8))
        tap.put_first(0, memoryview(b"0"))
        tap.put_first(1, memoryview(b"1"))
        taken: list[bytes] = []
        for block in (0, 1):
            with pytest.raises(InconsistentError, match=f"block {block} "):
                tap.open(lambda data: taken.append(bytes(data)), block)
        tap.open(lambda data: taken.append(bytes(data)), 2)
        tap.put_first(2, memoryview(b"2"))
        tap.finish()
        assert taken == [b"2"]


@pytest.mark.parametrize("ahead", [0, 1, 20])
def test_an_export_after_others_have_read(image: Path, ahead: int) -> None:
    """It is the whole bundle, or none at all."""
    recipe = Recipe("image", Metadata(ACCOUNT), recipients("image", [], []), user_keys(), level=1)
    with Image.open(image) as source, Workers(2) as workers:
        tap = Tap(workers.lane(8))
        bundle = Bundle(source, recipe, Engine(workers, tap), State(source.extents()))
        bundle.when_reached(Part(0), 0, ahead * MIB).result(HANG)
        sink = MemorySink()
        # A pass that was under way just then.
        with suppress(InconsistentError):
            Export(bundle, tap, sink, None).run()
            parts = [bytes(bundle.read(name, 0, PART_SIZE)) for name in bundle.names()]
            assert list(sink.files.values()) == [*parts[1:], parts[0]]
