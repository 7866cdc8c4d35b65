"""Bundles that lie on a server: a real `rclone mount`, whose log tells what is asked of it."""

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.back import MIB
from tests.mount.commands import eventually
from tests.mount.opened import opened
from tests.support import bundles, images, oracles
from tests.support.bundles import Bundler, Made, Workshop
from tests.support.changes import edit
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, detach, is_mounted
from tests.support.servers import stop
from tests.support.tools import clean_env, tool

SIZE = 24 * MIB


@dataclass(frozen=True, slots=True)
class Remote:
    """A folder as rclone shows it, and rclone's log."""

    path: Path
    log: Path

    def opened(self) -> Counter[str]:
        """Count how often each part was opened."""
        found = re.findall(r"(\S+): Open: flags=O_RDONLY", self.log.read_text())
        return Counter(path for path in found if ".part." in path)

    def read(self) -> int:
        """Give the bytes of all reads that the kernel asked for."""
        return sum(map(int, re.findall(r"Read: len=(\d+)", self.log.read_text())))


@contextlib.contextmanager
def rclone_mount(folder: Path, scratch: Path, *options: str) -> Iterator[Remote]:
    """Mount `folder` by rclone, which keeps what it knows of names for a day."""
    remote = Remote(scratch / "remote", scratch / "rclone.log")
    remote.path.mkdir()
    words = ["--config", "/dev/null", "--cache-dir", str(scratch / "cache"), "--log-file"]
    words += [str(remote.log), "-vv", "--dir-cache-time", "24h", *options]
    command = [tool("rclone"), "mount", *words, str(folder), str(remote.path)]
    server = subprocess.Popen(command, env=clean_env(scratch))
    try:
        eventually(lambda: is_mounted(remote.path) or server.poll() is not None)
        assert server.poll() is None, remote.log.read_text()
        yield remote
    finally:
        detach(remote.path)
        stop(server)


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> Path:
    return images.write(workshop.folder / "disk", images.noise(SIZE, "remote"))


@pytest.fixture(scope="module")
def many(workshop: Workshop, image: Path) -> Made:
    """A bundle of more parts than are kept open."""
    made = workshop.make(image, Bundler(bundles.gnu_tar(), ("gzip", "-1"), part_size=MIB), "many")
    assert len(made.parts) > 20
    return made


@pytest.fixture
def large(workshop: Workshop, image: Path, tmp_path: Path) -> Made:
    """A bundle of three parts, to be changed."""
    here = Workshop(tmp_path, workshop.user, workshop.ec2)
    return here.make(image, Bundler(bundles.gnu_tar(), ("gzip", "-1")), "large")


@pytest.fixture(scope="module")
def key(user_keys: KeyPair) -> tuple[str, Path]:
    return ("--user-key", user_keys.private)


def test_a_disk_opens_and_reads_each_part_once(
    many: Made, image: Path, key: tuple[str, Path], tmp_path: Path
) -> None:
    with rclone_mount(many.manifest.parent, tmp_path) as remote:
        with opened(remote.path / many.manifest.name, tmp_path / "mnt", *key) as mount:
            oracles.assert_same(mount.disk, image)
        # the last one is digested first and read last
        assert sum(remote.opened().values()) <= len(many.parts) + 1
        # to digest them; what is read again comes from the kernel's memory
        assert remote.read() <= 1.5 * sum(part.stat().st_size for part in many.parts)


def test_unbundling_opens_each_part_once(
    many: Made, image: Path, key: tuple[str, Path], tmp_path: Path
) -> None:
    with rclone_mount(many.manifest.parent, tmp_path) as remote:
        manifest = remote.path / many.manifest.name
        bundlefs("unbundle", manifest, *key, "-o", tmp_path / "disk")
        oracles.assert_same(tmp_path / "disk", image)
        assert sum(remote.opened().values()) <= 2 * len(many.parts)


def test_an_edit_that_the_server_does_not_tell_of(
    large: Made, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Size, times and inode stay what rclone remembers of them; its bytes are others."""
    content = large.image.read_bytes()
    options = ("--local-no-check-updated",)
    with (
        rclone_mount(large.manifest.parent, tmp_path, *options) as remote,
        opened(remote.path / large.manifest.name, tmp_path / "mnt", *key) as mount,
    ):
        assert mount.read(0, 4096) == content[:4096]
        shown = remote.path / large.parts[0].name
        before = shown.stat()
        edit(large.parts[0], 8 * MIB)
        # rclone notices on closing that what it gave is not what it gave the first time
        with contextlib.suppress(OSError), shown.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Stale file handle"):
            mount.read(8 * MIB, 4096)
        assert shown.stat()[:8] == before[:8]
        assert "are not what they were" in mount.status()["error"]
