"""Partition tables: read as sfdisk reads them, and as far as they go where they are damaged."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from bundlefs.image.look.partitions import MOST_PARTITIONS, Table, partition_table, table
from bundlefs.image.look.window import Budget, Window
from bundlefs.image.raw import Image
from tests.support import images
from tests.support.tools import run

MIB = images.MIB
SECTOR = 512

SCRIPTS = {
    "gpt": 'label: gpt\n2048,2048,U,\n,4096,L,*\nsize=100, name="root-\u00e9 \u2603"\n',
    "gaps": "label: gpt\n3 : start=4096,size=2048\n9 : start=2048,size=1024, name=low\n",
    "long": "label: gpt\ntable-length: 256\n200 : start=4096,size=2048\n",
    "mbr": "label: dos\n,4096,83,*\n,4096,ef\n,2048,82\n,,8e\n",
    "logical": "label: dos\n,4096,83\n,,5\n,2048,83\n,2048,83,*\n,,82\n",
    "linux": "label: dos\n1 : size=4096,type=83\n4 : start=20480,size=20000,type=f\n"
    "5 : size=2048,type=83\n6 : size=2048,type=82\n3 : start=8192,size=1000,type=83\n",
}


def made(path: Path, script: str, size: int = 32 * MIB) -> Path:
    images.sparse_image(path, size, {})
    run(["sfdisk", "-q", path], data=script.encode())
    return path


def read(path: Path) -> Table | None:
    with Image.open(path) as image:
        return partition_table(Window(image.peek, image.size, 0, Budget()))


def told(path: Path) -> Table:
    found = read(path)
    assert found is not None
    return found


def by_sfdisk(path: Path) -> list[dict[str, Any]]:
    document = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]
    found: list[dict[str, Any]] = document.get("partitions", [])
    return found


@pytest.mark.parametrize("kind", SCRIPTS)
def test_read_as_sfdisk_reads_them(kind: str, tmp_path: Path) -> None:
    path = made(tmp_path / "image", SCRIPTS[kind])
    found = told(path)
    assert found.name == ("GPT" if "gpt" in SCRIPTS[kind] else "MBR")
    assert found.faults == ()
    wanted = by_sfdisk(path)
    assert len(wanted) >= 1
    assert [
        (
            f"{path}{one.number}",
            one.start // SECTOR,
            one.size // SECTOR,
            one.code,
            one.name,
            one.bootable,
            str(one.uuid).upper() if one.uuid else None,
        )
        for one in sorted(found.partitions, key=lambda one: one.number)
    ] == [
        (
            one["node"],
            one["start"],
            one["size"],
            one["type"],
            one.get("name", ""),
            one.get("bootable", False) or "LegacyBIOSBootable" in one.get("attrs", ""),
            one.get("uuid"),
        )
        for one in sorted(wanted, key=lambda one: int(one["node"].removeprefix(str(path))))
    ]
    assert table(Window(lambda at, size: path.read_bytes()[at : at + size], 32 * MIB, 0, Budget()))


def entry(kind: int, start: int, size: int, flag: int = 0) -> bytes:
    return struct.pack("<B3xB3xII", flag, kind, start, size)


def sector(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def disk(path: Path, **sectors: bytes) -> Path:
    data = {int(name[1:]) * SECTOR: data for name, data in sectors.items()}
    return images.sparse_image(path, 8 * MIB, data)


def test_a_chain_that_goes_in_a_circle_is_read_once(tmp_path: Path) -> None:
    path = disk(
        tmp_path / "image",
        _0=sector(entry(5, 100, 9000)),
        _100=sector(entry(0x83, 10, 50), entry(5, 200, 100)),
        _300=sector(entry(0x83, 10, 50), entry(5, 0, 100)),
    )
    found = told(path)
    assert [(one.number, one.start) for one in found.partitions] == [
        (1, 100 * SECTOR),
        (5, 110 * SECTOR),
        (6, 310 * SECTOR),
    ]
    assert found.faults == ("the chain of its logical partitions goes in a circle",)


@pytest.mark.parametrize(("onward", "why"), [(5000, "breaks off"), (1 << 31, "leads out of")])
def test_a_chain_that_ends_badly(onward: int, why: str, tmp_path: Path) -> None:
    path = disk(
        tmp_path / "image",
        _0=sector(entry(5, 100, 9000)),
        _100=sector(entry(0x83, 10, 50), entry(5, onward, 100)),
    )
    found = told(path)
    assert len(found.partitions) == 2
    assert [why in fault for fault in found.faults] == [True]


def test_a_chain_without_an_end_ends(tmp_path: Path) -> None:
    chain = {
        f"_{number}": sector(entry(0x83, 1, 1), entry(5, number - 99, 1))
        for number in range(100, 12000)
    }
    path = disk(tmp_path / "image", _0=sector(entry(5, 100, 15000)), **chain)
    found = told(path)
    assert found.partitions[-1].number == MOST_PARTITIONS
    assert any("more partitions" in fault for fault in found.faults)


def test_what_overlaps_or_is_beyond_the_end_is_told(tmp_path: Path) -> None:
    path = disk(
        tmp_path / "image",
        _0=sector(entry(0x83, 100, 900), entry(0x83, 500, 100), entry(0x83, 950, 1 << 20)),
    )
    found = told(path)
    assert len(found.partitions) == 3
    assert found.faults == (
        "partition 3 reaches beyond the end of the disk",
        "partitions 1 and 2 overlap",
        "partitions 1 and 3 overlap",
    )
    assert found.doubtful


def gpt(data: bytes, *, count: int, width: int = 128) -> bytes:
    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, 1, 16383, 34, 1000, bytes(16),
            2, count, width, zlib.crc32(data),
        )  # fmt: skip

    return header(zlib.crc32(header(0)))


PROTECTIVE = sector(entry(0xEE, 1, 16383))


@pytest.mark.parametrize(("count", "width"), [(1_000_000, 128), (1 << 31, 1 << 31), (4, 1 << 20)])
def test_a_gpt_that_is_too_large_is_not_read(count: int, width: int, tmp_path: Path) -> None:
    path = disk(tmp_path / "image", _0=PROTECTIVE, _1=gpt(b"", count=count, width=width))
    found = told(path)
    assert found.partitions == ()
    assert found.doubtful
    assert found.faults == (f"it claims {count} entries of {width} bytes, which is not read",)


def test_as_many_partitions_as_linux_numbers(tmp_path: Path) -> None:
    one = struct.pack("<16s16sQQQ72s", b"\1" * 16, b"\2" * 16, 5000, 5001, 0, b"\x1b\0[\0002\0J\0")
    data = one * 4000
    path = disk(tmp_path / "image", _0=PROTECTIVE, _1=gpt(data, count=4000), _2=data)
    found = told(path)
    assert len(found.partitions) == MOST_PARTITIONS
    assert any("more partitions" in fault for fault in found.faults)


@pytest.mark.parametrize("damage", [SECTOR + 20, 2 * SECTOR + 20])
def test_a_damaged_gpt_is_read_from_its_copy(damage: int, tmp_path: Path) -> None:
    path = made(tmp_path / "image", SCRIPTS["gpt"])
    good = told(path)
    with path.open("r+b") as file:
        file.seek(damage)
        file.write(b"damage")
    found = told(path)
    assert (found.partitions, found.size) == (good.partitions, good.size)
    assert [fault.partition("; ")[2] for fault in found.faults] == [
        "its copy at the end of the disk was read"
    ]
    with path.open("r+b") as file:
        file.seek(-SECTOR + 20, 2)
        file.write(b"damage")
    found = told(path)
    assert found.partitions == ()
    assert "damaged" in found.faults[0]


@pytest.mark.parametrize(
    "head", [b"", bytes(510) + b"\x55\xaa", b"\xeb\x3c\x90mkfs.fat".ljust(446, b"\x90") + b"a" * 64]
)
def test_no_table(head: bytes, tmp_path: Path) -> None:
    assert read(disk(tmp_path / "image", _0=head)) is None
