"""Images that change or cannot be read under a bundle, and bundles that are closed."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bundlefs.base.errors import BundlefsError, ClosedError, ImageChangedError
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import Part
from bundlefs.image.raw import Image
from bundlefs.manifest.write import Metadata
from bundlefs.state.index import PART_SIZE
from tests.stream.engine import (
    HANG,
    MANIFEST,
    Setting,
    in_threads,
    opened,
    parts_of,
    user_keys,
)

MIB = 1 << 20
KIB = 1 << 10
PLENTY = 256 * MIB


@pytest.fixture
def own(noisy: Path, tmp_path: Path) -> Path:
    """Give a copy of the noisy image to spoil."""
    path = tmp_path / "disk"
    path.write_bytes(noisy.read_bytes())
    return path


def spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as image:
        image.seek(offset)
        image.write(b"!")


def shrink(path: Path, size: int) -> None:
    os.truncate(path, size)


@pytest.mark.parametrize("spoiler", [spoil, shrink])
def test_an_image_that_changes_before_the_frontier(
    own: Path, spoiler: Callable[[Path, int], None]
) -> None:
    with opened(own, Setting(1)) as bundle:
        bundle.when_sized(Part(0)).result(HANG)
        spoiler(own, 50 * MIB)
        asked = [
            bundle.when_listed(),
            bundle.when_complete(),
            bundle.when_sized(Part(3)),
            bundle.when_digested(Part(3)),
        ]
        errors = {type(future.exception(HANG)) for future in asked}
        assert errors == {ImageChangedError}
        assert_failed(bundle, Part(3))
        with pytest.raises(BundlefsError):
            bundle.entries()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("spoiler", [spoil, shrink])
def test_an_image_that_changes_behind_the_frontier(
    own: Path, spoiler: Callable[[Path, int], None]
) -> None:
    with opened(own, Setting(1)) as bundle:
        names = [bundle.name(part) for part in parts_of(bundle)]
        spoiler(own, 15 * MIB)

        def read(number: int) -> str:
            with pytest.raises(ImageChangedError):
                bundle.read(Part(number % 6), number * 10_000, 1000)
            return "heard"

        assert in_threads(16, [partial(read, number) for number in range(64)]) == ["heard"] * 64
        assert_failed(bundle, Part(0))
        # The directory keeps its names and sizes.
        assert [bundle.name(part) for part in parts_of(bundle)] == names
        assert bundle.when_sized(Part(5)).exception(HANG) is None
        assert bundle.known_size(Part(5)) == PART_SIZE


def rename_over(path: Path, _: int) -> None:
    other = path.with_name("other")
    other.write_bytes(b"another")
    other.rename(path)


def remove(path: Path, _: int) -> None:
    path.unlink()


@pytest.mark.parametrize("asked", ["names", "size", "part", "manifest", "check", "look"])
@pytest.mark.parametrize("spoiler", [spoil, shrink, rename_over, remove])
def test_an_image_that_changes_when_all_is_known(
    own: Path, spoiler: Callable[[Path, int], None], asked: str
) -> None:
    """Nothing of it has to be read any more; each question finds it alone, and for good."""
    metadata = Metadata("123456789012")
    with Bundle.from_image(own, metadata, level=0, user_keys=user_keys()) as bundle:
        names = bundle.names()
        ways: dict[str, Callable[[], object]] = {
            "names": bundle.names,
            "size": lambda: bundle.size(names[0]),
            "part": lambda: bundle.read(names[1], 0, 5),
            "manifest": lambda: bundle.read(names[0], 0, 5),
            "check": bundle.check,
        }
        for way in ways.values():
            way()
        bundle.when_complete().result(HANG)
        spoiler(own, 59 * MIB)
        if asked == "look":
            bundle.look().result(HANG)
        else:
            with pytest.raises(ImageChangedError):
                ways[asked]()
        assert bundle.status().phase == "failed"
        for way in ways.values():
            with pytest.raises(ImageChangedError):
                way()


def test_an_image_that_changes_behind_the_last_read_is_no_bundle(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last read and the end of the pass."""
    with opened(own, Setting(1)) as bundle:
        image = bundle._image  # noqa: SLF001
        end, read = image.size, image.read

        def read_and_spoil(offset: int, length: int) -> bytes:
            data = read(offset, length)
            if offset + length == end:
                spoil(own, 0)
            return data

        monkeypatch.setattr(image, "read", read_and_spoil)
        assert isinstance(bundle.when_complete().exception(HANG), ImageChangedError)
        assert bundle.status().phase == "failed"


def test_bytes_in_memory_are_not_served_for_long(own: Path) -> None:
    with opened(own, Setting(1, cache=PLENTY)) as bundle:
        bundle.when_complete().result(HANG)
        assert bundle.read_fast(Part(0), 0, 5)
        spoil(own, 0)
        deadline = time.monotonic() + HANG
        while bundle.read_fast(Part(0), 0, 5) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert_failed(bundle, Part(0))


def assert_failed(bundle: Bundle, part: Part) -> None:
    """See that the failure stays and shows."""
    for _ in range(3):
        with pytest.raises(ImageChangedError):
            bundle.read(part, 0, 1)
        assert bundle.read_fast(part, 0, 1) is None
        assert isinstance(bundle.when_complete().exception(HANG), ImageChangedError)
        with pytest.raises(ImageChangedError):
            bundle.read(MANIFEST, 0, 1)
    status = bundle.status()
    assert status.phase == "failed"
    assert str(bundle._image.path) in (status.error or "")  # noqa: SLF001 - the text names it


def test_an_image_that_changes_while_many_wait(own: Path) -> None:
    with opened(own, Setting(9, jobs=1)) as bundle:

        def read(number: int) -> str:
            with pytest.raises(ImageChangedError):
                bundle.read(Part(5), number, 1)
            return "heard"

        waiting = [bundle.when_reached(Part(5), number, 1) for number in range(50)]
        spoil(own, 59 * MIB)
        assert in_threads(16, [partial(read, number) for number in range(16)]) == ["heard"] * 16
        assert {type(future.exception(HANG)) for future in waiting} == {ImageChangedError}


def test_closing_wakes_who_waits(noisy: Path) -> None:
    with opened(noisy, Setting(9, jobs=1)) as bundle:
        waiting = [bundle.when_listed(), bundle.when_complete(), bundle.when_reached(Part(5), 0, 1)]
        readers: list[BaseException] = []

        def read() -> None:
            try:
                bundle.read(Part(5), 0, 1)
            except ClosedError as error:
                readers.append(error)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        bundle.close()
        assert {type(future.exception(HANG)) for future in waiting} == {ClosedError}
        for thread in threads:
            thread.join(HANG)
        assert len(readers) == 8
        assert isinstance(bundle.when_complete().exception(HANG), ClosedError)


def test_closing_early_ends_the_pass_soon(noisy: Path) -> None:
    with opened(noisy, Setting(9, jobs=1)) as bundle:
        bundle.when_complete()
    assert bundle.status().tar_bytes_done < bundle.status().tar_size


def test_a_read_that_fails_keeps_its_errno(own: Path) -> None:
    with opened(own, Setting(1)) as bundle:
        bundle.when_sized(Part(0)).result(HANG)
        image = bundle._image  # noqa: SLF001
        assert isinstance(image, Image)
        # A descriptor that cannot be read: what a disk that went away amounts to.
        os.close(image.fileno())
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            bundle.when_complete().result(HANG)
        assert caught.value.errno == 9
        image._descriptor = -1  # noqa: SLF001
        assert bundle.status().phase == "failed"
