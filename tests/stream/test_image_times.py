"""What tells that an image was changed, and how long opening waits until its times can."""

import dataclasses
import time
from pathlib import Path

import pytest

from bundlefs.base.errors import ImageChangedError
from bundlefs.image.identity import Identity, settling_ns
from bundlefs.image.raw import Image

SECOND = 1_000_000_000


def test_an_edit_right_after_opening_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for turn in range(20):
        path.write_bytes(b"before")
        with Image.open(path) as image:
            path.write_bytes(b"edited")
            with pytest.raises(ImageChangedError):
                image.read(turn % 6, 1)


def test_opening_waits_until_the_last_edit_is_past(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"fresh")
    with Image.open(path) as image:
        assert time.time_ns() - image.identity.ctime_ns >= 20_000_000


BASE = Identity(
    size=5,
    mtime_ns=100 * SECOND + 7,
    ctime_ns=100 * SECOND + 9,
    inode=1,
    device=2,
    is_block_device=False,
)


@pytest.mark.parametrize(
    ("identity", "now_ns", "wait_ns"),
    [
        (BASE, BASE.ctime_ns, 20_000_000),
        (BASE, BASE.ctime_ns + 19_999_999, 1),
        (BASE, BASE.ctime_ns + 20_000_000, 0),
        (BASE, BASE.ctime_ns - 1, 0),  # from the future: an edit now has an older time
        (dataclasses.replace(BASE, mtime_ns=BASE.ctime_ns + 50), BASE.ctime_ns + 51, 19_999_999),
        (dataclasses.replace(BASE, ctime_ns=101 * SECOND), 101 * SECOND + 5, 2 * SECOND - 5),
        (dataclasses.replace(BASE, is_block_device=True), BASE.ctime_ns, 0),
    ],
)
def test_how_long_to_wait(identity: Identity, now_ns: int, wait_ns: int) -> None:
    assert settling_ns(identity, now_ns) == wait_ns


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BASE, []),
        (dataclasses.replace(BASE, device=9), []),
        (dataclasses.replace(BASE, size=3), ["size was 5 bytes, is 3"]),
        (dataclasses.replace(BASE, inode=4), ["inode was 1, is 4"]),
        (
            dataclasses.replace(BASE, is_block_device=True),
            ["it was a file and is a block device, or the reverse"],
        ),
    ],
)
def test_changes_in_words(now: Identity, words: list[str]) -> None:
    assert BASE.changes(now) == words
