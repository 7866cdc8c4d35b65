"""A disk that fails under a live mount: an error for good, and what was read before stays."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.broken_disk import broken_disk
from tests.mount.commands import eventually, names
from tests.mount.live import Live
from tests.support import images
from tests.support.mounts import mounted
from tests.support.processes import ended

MIB = images.MIB
GOOD = 12 * MIB


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Live]:
    """A mount of a disk of which the first 12 MiB of 25 can be read."""
    log = tmp_path / "log"
    with broken_disk(tmp_path / "disks", 25 * MIB, GOOD) as disk:
        # Level 0: a listing needs no read, so names and sizes are known from the start.
        options = ("--level", "0", "--jobs", "1", "--log-file", log)
        with mounted(disk, tmp_path / "mnt", *options) as mount:
            yield Live(mount, log)


def test_a_disk_that_cannot_be_read(broken: Live) -> None:
    listed = names(broken.mount.path)
    assert listed == ["image.manifest.xml", *(f"image.part.{number:02}" for number in range(3))]
    whole = broken.part(0).read_bytes()
    with pytest.raises(OSError, match="Input/output error") as caught:
        broken.part(1).read_bytes()
    assert caught.value.errno == errno.EIO
    status = broken.mount.status()
    assert status["phase"] == "failed"
    assert "Input/output error" in status["error"]
    assert status["parts_made"] == 1
    assert " ERROR: " in broken.log.read_text()
    assert names(broken.mount.path) == listed
    assert len(whole) == 10 * MIB
    sha1 = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    assert os.getxattr(broken.part(0), "user.bundlefs.sha1").decode() == sha1


def test_a_failed_mount_ends_as_any_other(broken: Live) -> None:
    assert eventually(lambda: broken.mount.status()["phase"] == "idle")
    with pytest.raises(OSError, match="Input/output error"):
        broken.part(2).read_bytes()
    broken.mount.umount()
    assert ended(broken.mount.pid, 1)
