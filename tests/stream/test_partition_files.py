"""Partitions of an opened bundle as files: as sfdisk finds them, or none that are in doubt."""

import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.unbundling.partitions import partitions
from tests.support import images
from tests.support.tools import run

MIB = images.MIB
SIZE = 40 * MIB
ENTRIES = 446


class Disk:
    """An image of which the first `near` bytes are quickly reached."""

    name = "image.img"

    def __init__(self, path: Path, near: int = 1 << 62) -> None:
        self._data = path.read_bytes()
        self._near = near
        self.size = len(self._data)

    def peek(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length] if offset + length <= self._near else b""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return images.sparse_image(tmp_path / "disk", SIZE, {})


def sfdisk(path: Path, *lines: str) -> None:
    run(["sfdisk", "-q", "--no-reread", path], data="\n".join(lines).encode())


def as_sfdisk_says(path: Path) -> dict[int, Span]:
    """Return all partitions but containers, by number."""
    table = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]
    sector = table.get("sectorsize", 512)
    return {
        int(one["node"].removeprefix(str(path))): Span(
            one["start"] * sector, (one["start"] + one["size"]) * sector
        )
        for one in table["partitions"]
        if one["type"] not in ("5", "f", "85")
    }


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def numbered(*numbers: int) -> list[str]:
    return [f"{one} : start={number * 8192}, size=4096" for number, one in enumerate(numbers, 1)]


LOGICAL = ("label: dos", "2048,8192,83", "10240,,5", "12288,8192,83", "22528,4096,82")


@pytest.mark.parametrize(
    ("lines", "numbers"),
    [
        (("label: dos", "2048,4096,83,*", "8192,,83"), [1, 2]),
        (LOGICAL, [1, 5, 6]),
        (("label: gpt", "2048,4096,L", "8192,,U"), [1, 2]),
        (("label: gpt", *numbered(1, 7, 40)), [1, 7, 40]),
    ],
)
def test_as_sfdisk_finds_them(
    lines: tuple[str, ...], numbers: list[int], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sfdisk(path, *lines)
    found = partitions(Disk(path))
    assert sorted(found) == numbers
    assert found == as_sfdisk_says(path)
    assert warnings(caplog) == []


def ext4(path: Path) -> None:
    run(["mke2fs", "-q", "-F", "-t", "ext4", path])


def fat(path: Path) -> None:
    """Write a boot sector whose code stands where a table would be."""
    with path.open("r+b") as file:
        file.write(b"\xeb\x58\x90MSDOS5.0\0\2\x08\x20\0\2\0\0\0\0\xf8\0\0\x3f\0\xff\0\0\0\0\0")
        file.write(struct.pack("<II", SIZE // 512, 79) + bytes(20))
        file.seek(82)
        file.write(b"FAT32   " + b"\xfc\x31\xc0" * 100)
        file.seek(510)
        file.write(b"\x55\xaa")


@pytest.mark.parametrize("make", [ext4, fat])
def test_a_disk_without_a_table_is_one_partition(
    make: Callable[[Path], None], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(path)
    assert partitions(Disk(path)) == {1: Span(0, SIZE)}
    assert warnings(caplog) == []


def test_nothing_that_is_known(path: Path, tmp_path: Path) -> None:
    assert partitions(Disk(path)) == {}
    assert partitions(Disk(images.random_image(tmp_path / "random", MIB))) == {}
    assert partitions(Disk(images.random_image(tmp_path / "tiny", 100))) == {}


# --- hostile and damaged tables ---


def test_beyond_the_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sfdisk(path, "label: gpt", "2048,4096", "8192,16384", "32768,")
    with path.open("r+b") as file:
        file.truncate(10 * MIB)
    assert sorted(partitions(Disk(path))) == [1]
    assert "partition 3 reaches beyond the end of the disk" in "\n".join(warnings(caplog))
    assert warnings(caplog)[-1] == ("image.img: of its partitions are not shown as files: 2, 3")


def test_overlapping(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second of the logical ones is moved into the first, the rest stays."""
    sfdisk(path, *LOGICAL)
    with path.open("r+b") as file:
        [link] = struct.unpack_from("<I", path.read_bytes(), 10240 * 512 + ENTRIES + 16 + 8)
        file.seek((10240 + link) * 512 + ENTRIES + 8)
        file.write(struct.pack("<I", (1 << 32) - 10240 - link + 12288 + 8))
    found = partitions(Disk(path))
    assert set(found) <= {1, 5}
    assert found[1] == Span(MIB, 5 * MIB)
    assert warnings(caplog)


def test_a_chain_in_a_circle(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sfdisk(path, *LOGICAL)
    data = bytearray(path.read_bytes())
    [link] = struct.unpack_from("<I", data, 10240 * 512 + ENTRIES + 16 + 8)
    at = (10240 + link) * 512 + ENTRIES + 16
    data[at : at + 16] = struct.pack("<B3xB3xII", 0, 5, 0, 4096)
    path.write_bytes(data)
    assert partitions(Disk(path))[1] == Span(MIB, 5 * MIB)
    assert any("circle" in text for text in warnings(caplog))


def test_what_takes_a_pass_is_not_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All of them or none."""
    sfdisk(path, *LOGICAL)
    assert partitions(Disk(path, near=4 * MIB)) == {}
    said = "image.img: its partitions are not shown as files: the table leads too far into it"
    assert warnings(caplog)[-1] == said
    assert sorted(partitions(Disk(path, near=20 * MIB))) == [1, 5, 6]


def test_a_bundle_that_cannot_be_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(path)

    def damaged(offset: int, length: int) -> bytes:
        raise BundleError(f"part 0 is damaged at {offset}, {length}")

    disk.peek = damaged  # type: ignore[method-assign]
    assert partitions(disk) == {}
    assert warnings(caplog) == [
        "image.img: its partitions are not shown as files: part 0 is damaged at 0, 512"
    ]


def test_a_million_entries(path: Path) -> None:
    sfdisk(path, "label: gpt", "2048,4096")
    data = bytearray(path.read_bytes())
    for header in (512, SIZE - 512):
        data[header + 80 : header + 84] = struct.pack("<I", 1_000_000)
    path.write_bytes(data)
    assert partitions(Disk(path)) == {}
