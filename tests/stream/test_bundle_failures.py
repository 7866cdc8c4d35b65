"""Images that change or cannot be read under a bundle, and bundles that are closed."""

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bundlefs.bundle import Bundle
from bundlefs.entries import Part
from bundlefs.errors import BundlefsError, ClosedError, ImageChangedError
from bundlefs.image import Image
from bundlefs.index import PART_SIZE
from tests.stream.engine import (
    HANG,
    MANIFEST,
    Setting,
    in_threads,
    opened,
    parts_of,
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
        bundle.sized(Part(0)).result(HANG)
        spoiler(own, 50 * MIB)
        asked = [
            bundle.listed(),
            bundle.complete(),
            bundle.sized(Part(3)),
            bundle.digested(Part(3)),
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
        assert bundle.sized(Part(5)).exception(HANG) is None
        assert bundle.known_size(Part(5)) == PART_SIZE


def assert_failed(bundle: Bundle, part: Part) -> None:
    """See that the failure stays and shows."""
    for _ in range(3):
        with pytest.raises(ImageChangedError):
            bundle.read(part, 0, 1)
        assert bundle.read_fast(part, 0, 1) is None
        assert isinstance(bundle.complete().exception(HANG), ImageChangedError)
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

        waiting = [bundle.reached(Part(5), number, 1) for number in range(50)]
        spoil(own, 59 * MIB)
        assert in_threads(16, [partial(read, number) for number in range(16)]) == ["heard"] * 16
        assert {type(future.exception(HANG)) for future in waiting} == {ImageChangedError}


def test_closing_wakes_who_waits(noisy: Path) -> None:
    with opened(noisy, Setting(9, jobs=1)) as bundle:
        waiting = [bundle.listed(), bundle.complete(), bundle.reached(Part(5), 0, 1)]
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
        assert isinstance(bundle.complete().exception(HANG), ClosedError)


def test_closing_early_ends_the_pass_soon(noisy: Path) -> None:
    with opened(noisy, Setting(9, jobs=1)) as bundle:
        bundle.complete()
    assert bundle.status().tar_bytes_done < bundle.status().tar_size


def test_a_read_that_fails_keeps_its_errno(own: Path) -> None:
    with opened(own, Setting(1)) as bundle:
        bundle.sized(Part(0)).result(HANG)
        image = bundle._image  # noqa: SLF001
        assert isinstance(image, Image)
        # A descriptor that cannot be read: what a disk that went away amounts to.
        os.close(image.fileno())
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            bundle.complete().result(HANG)
        assert caught.value.errno == 9
        image._descriptor = -1  # noqa: SLF001
        assert bundle.status().phase == "failed"
