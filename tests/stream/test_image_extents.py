"""Extents of an image: what of it is data, and that the rest reads as zeros."""
# ruff: noqa: S311 (noise as test data keeps no secret)

from pathlib import Path
from random import Random

import pytest

from bundlefs.base.spans import Span
from bundlefs.image.raw import Image

KIB = 1 << 10
MIB = 1 << 20


def make_sparse(path: Path, size: int, extents: tuple[Span, ...]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for extent in extents:
            file.seek(extent.start)
            file.write(b"\xff" * extent.length)


@pytest.mark.parametrize(
    ("size", "extents"),
    [
        (1, (Span(0, 1),)),
        (300_000, (Span(0, 300_000),)),
        (300_000, ()),
        (MIB, (Span(128 * KIB, 256 * KIB),)),
        (MIB, (Span(0, 64 * KIB), Span(MIB - 64 * KIB, MIB))),
        (MIB + 5, (Span(512 * KIB, MIB + 5),)),
        (1 << 40, (Span(64 * KIB, 128 * KIB), Span((1 << 40) - 64 * KIB, 1 << 40))),
    ],
)
def test_extents_of_a_file(tmp_path: Path, size: int, extents: tuple[Span, ...]) -> None:
    make_sparse(tmp_path / "image", size, extents)
    with Image.open(tmp_path / "image") as image:
        assert image.extents() == extents
        assert image.bytes_read == 0


def test_all_that_is_no_extent_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "image"
    random = Random(5)
    with path.open("wb") as file:
        file.truncate(4 * MIB)
        for _ in range(50):
            file.seek(random.randrange(4 * MIB))
            file.write(random.randbytes(random.randrange(1, 9000)))
    content = bytearray(path.read_bytes())
    with Image.open(path) as image:
        extents = image.extents()
    assert list(extents) == sorted(extents)
    assert len(extents) > 1
    for extent in extents:
        content[extent.start : extent.stop] = bytes(extent.length)
    assert not any(content)


def test_a_file_system_that_knows_no_holes() -> None:
    with Image.open("/sys/kernel/uevent_seqnum") as image:
        assert image.extents() == (Span(0, image.size),)
