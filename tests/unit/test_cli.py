"""The pure parts of the command line: arguments as people write them, statuses as they read them.

What a command does is shown with real mounts, in tests/mount.
"""

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs import __version__
from bundlefs.cli import main, parser
from bundlefs.cli.bars import bar
from bundlefs.cli.commands.status import describe
from bundlefs.cli.common import human, positive, size

KIB, MIB, GIB, TIB = (1 << shift for shift in (10, 20, 30, 40))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("256M", 256 * MIB),
        ("256MB", 256 * MIB),
        ("256MiB", 256 * MIB),
        ("256mib", 256 * MIB),
        ("1.5G", 3 * GIB // 2),
        ("2T", 2 * TIB),
        (" 1G ", GIB),
        ("9" * 15, 10**15 - 1),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    "text", ["", "G", "1X", "-1", "+1", "1e3", "1 G", "1.G", ".5G", "1GG", "nan", "٣", "9" * 400]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a size; write 4096, 64K"):
        size(text)


@given(st.integers(0, 10**15 - 1))
def test_a_number_of_bytes_is_its_own_size(count: int) -> None:
    assert size(str(count)) == count


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("16", 16), ("007", 7)])
def test_positive(text: str, number: int) -> None:
    assert positive(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.0", "x", "٣", "²", " 1"])
def test_what_is_not_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 up"):
        positive(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1023, "1023 bytes"),
        (KIB, "1.0 KiB"),
        (10 * MIB, "10.0 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (TIB, "1.0 TiB"),
        (5000 * TIB, "5000.0 TiB"),
    ],
)
def test_sizes_for_a_person(count: int, text: str) -> None:
    assert human(count) == text


def test_what_mount_does_unless_told_otherwise() -> None:
    arguments = parser().parse_args(["mount", "disk", "mnt"])
    assert (arguments.image, arguments.mountpoint) == (Path("disk"), Path("mnt"))
    assert (arguments.prefix, arguments.type, arguments.level) == ("image", "machine", 6)
    assert arguments.cache_size == 256 * MIB
    assert arguments.jobs >= 1
    asked = (arguments.foreground, arguments.eager, arguments.allow_other, arguments.no_sparse)
    assert not any(asked)
    lists = (arguments.region, arguments.ec2_cert, arguments.block_device_mapping, arguments.o)
    assert lists == ([], [], [], [])


def test_lists_do_not_leak_into_the_next_parse() -> None:
    top = parser()
    assert top.parse_args(["mount", "--region", "eu-west-1", "a", "b"]).region == ["eu-west-1"]
    assert top.parse_args(["mount", "a", "b"]).region == []


@pytest.mark.parametrize("words", [["--help"], ["mount", "--help"], ["umount", "-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: bundlefs")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"bundlefs {__version__}\n"


def status(**changes: object) -> dict[str, Any]:
    """Give a status as a mount reports it."""
    return {
        "phase": "idle",
        "image": "/images/disk",
        "image_size": 3 * MIB,
        "image_bytes_read": MIB,
        "tar_size": 4 * MIB,
        "tar_bytes_done": MIB,
        "parts_made": 2,
        "sealed_bytes": 21 * MIB,
        "seconds": 75.4,
        "pass_seconds": 10.0,
        "error": None,
        "pid": 4711,
    } | changes


def test_a_status_for_a_person() -> None:
    assert describe(status()).splitlines() == [
        "image     /images/disk, 3.0 MiB",
        "phase     idle: nothing to do; what is asked for next is made then",
        "bundle    2 parts made, 21.0 MiB sealed",
        "read      1.0 MiB of the image",
        "mounted   for 75 s, by process 4711",
    ]


def test_a_failed_status_says_why() -> None:
    *_, last = describe(status(phase="failed", error="the image was changed")).splitlines()
    assert last == "error     the image was changed"


def test_a_running_status_has_a_bar() -> None:
    *_, last = describe(status(phase="indexing")).splitlines()
    assert last == bar(status(phase="indexing"))
    assert last.startswith(" 25%|")
    assert last.endswith("| 1.00M/4.00M [00:10<00:30, 105kB/s]")
    assert len(last) == 78


@pytest.mark.parametrize(("done", "percent"), [(0, "  0%|"), (4 * MIB, "100%|")])
def test_bars_at_the_ends(done: int, percent: str) -> None:
    assert bar(status(phase="indexing", tar_bytes_done=done)).startswith(percent)
