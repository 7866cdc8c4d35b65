"""The kernel keeps finished parts: nothing is made twice, and nobody hangs or is lied to for it.

Whatever is in memory here is what the kernel was given: `--cache-size 0` keeps some blocks for a
moment alone. The kernel may drop pages at any moment, and some virtual machines drop single ones
all the time, of any file: so "once" is far less than "twice" here, and not a number.
"""

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.commands import eventually, names
from tests.mount.test_cache import forget
from tests.support import images, mounts
from tests.support.mounts import END_SECONDS, Mount, bundlefs, is_mounted, mounted
from tests.support.processes import ended
from tests.support.tools import tool

MIB = images.MIB
SIZE = 65 * MIB
PARTS = 7
BLOCKS = SIZE // MIB + 1
OPTIONS = ("--state", "none", "--level", "1", "--cache-size", "0")

SCARCE = (
    *(sys.executable, "-c"),
    (
        "import sys; from bundlefs.fuse import pagecache;"
        " pagecache.available_memory = lambda: 70 << 20;"
        " from bundlefs.cli import main; sys.exit(main())"
    ),
)
"""A machine on which 70 MiB could be had."""
BROKEN = (
    *(sys.executable, "-c"),
    (
        "import sys; from bundlefs.bundling.maker import Maker\n"
        "def read(self, block, real=Maker.read):\n"
        "    if block == 45: raise OSError(5, 'Input/output error')\n"
        "    return real(self, block)\n"
        "Maker.read = read\n"
        "from bundlefs.cli import main; sys.exit(main())"
    ),
)
"""A disk that cannot be read from 45 MiB on."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("image") / "disk", SIZE)


def read_all(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def counts(mount: Mount) -> tuple[int, int]:
    status = mount.status()
    return status["blocks_compressed"], status["blocks_made_again"]


def assert_made_once(mount: Mount, blocks: int = BLOCKS) -> None:
    made, again = counts(mount)
    assert made == BLOCKS + again
    assert again < blocks // 2


def given(mount: Mount) -> int:
    return int(mount.status()["page_cache_bytes"])


def test_what_is_listed_and_then_read_is_made_once(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, *OPTIONS) as mount:
        sizes = [path.stat().st_size for path in sorted(mountpoint.iterdir())]
        assert counts(mount) == (BLOCKS, 0)
        assert given(mount) == sum(sizes[1:])
        whole = read_all(mountpoint)
        assert read_all(mountpoint) == whole
        assert_made_once(mount)
        assert sizes == list(map(len, whole))
        again = bundlefs("status", mountpoint)
        assert re.search(r"again +\d+ of \d+ blocks; the page cache was given 65.0 MiB\n", again)
        # What the kernel was given is what is made for who reads it.
        forget(mountpoint)
        assert read_all(mountpoint) == whole
        made, twice = counts(mount)
        assert made == BLOCKS + twice > BLOCKS
        metrics = (mountpoint / ".bundlefs/metrics").read_text().splitlines()
        assert f'bundlefs_blocks_made_again_total{{image="{image}"}} {twice}' in metrics
        digests = [hashlib.sha1(part, usedforsecurity=False).hexdigest() for part in whole[1:]]
        told = [os.getxattr(part, "user.bundlefs.sha1").decode() for part in mount.parts()]
        assert told == digests


def test_it_can_be_turned_off(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, *OPTIONS, "-o", "no-page-cache") as mount:
        read_all(mountpoint)
        made, twice = counts(mount)
        assert made == BLOCKS + twice
        assert twice > BLOCKS * 3 // 4
        assert given(mount) == 0


def test_a_cache_dir_needs_no_help(image: Path, tmp_path: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, *OPTIONS, "--cache-dir", tmp_path) as mount:
        read_all(mountpoint)
        assert counts(mount) == (BLOCKS, 0)
        assert given(mount) == 0


def test_the_first_parts_stay_where_memory_is_scarce(
    image: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "BUNDLEFS", SCARCE)
    with mounted(image, mountpoint, *OPTIONS) as mount:
        parts = mount.parts()
        assert given(mount) == 30 * MIB
        first = [part.read_bytes() for part in parts[:3]]
        assert_made_once(mount, 30)
        forget(mountpoint)
        assert [part.read_bytes() for part in parts[:3]] == first


def test_no_more_is_given_to_who_does_not_keep_it(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, *OPTIONS) as mount:
        with (mountpoint / "image.part.03").open("rb") as part:
            assert given(mount) == 40 * MIB, "it, and all before it"
            waited = part.read()
        with (mountpoint / "image.part.00").open("rb", buffering=0) as part:
            # As if the kernel had needed the room.
            os.posix_fadvise(part.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert part.read(MIB)
        assert len(mount.parts()) == PARTS
        assert given(mount) == 40 * MIB
        assert (mountpoint / "image.part.03").read_bytes() == waited


def test_of_a_folder_only_what_is_listed_or_read(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("one\n'", "two"):
        os.link(image, folder / name)
    (folder / "link").symlink_to("two")
    with mounted(folder, tmp_path / "mnt", "--level=1", "--cache-size=0") as mount:
        assert names(mount.path) == ["link", "one\n'", "two"]
        assert given(mount) == 0
        whole = read_all(mount.path / "one\n'")
        parts = sorted(map(len, whole))[-PARTS:]
        assert given(mount) >= sum(parts[:-2]), "all but two"
        assert_made_once(mount)
        # The same bundle by two names; the kernel knows two files.
        assert read_all(mount.path / "link") == read_all(mount.path / "two") != whole


def test_a_changed_image_is_not_read_from_the_page_cache(tmp_path: Path, mountpoint: Path) -> None:
    image = images.random_image(tmp_path / "disk", 45 * MIB)
    with mounted(image, mountpoint, *OPTIONS) as mount:
        parts = mount.parts()
        assert given(mount) >= 30 * MIB
        os.utime(image)
        for part in parts:
            with pytest.raises(OSError, match="Stale") as caught:
                part.read_bytes()
            assert caught.value.errno == errno.ESTALE


def test_a_failed_bundle_is_not_read_from_the_page_cache(
    image: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "BUNDLEFS", BROKEN)
    with mounted(image, mountpoint, *OPTIONS) as mount:
        with pytest.raises(OSError, match="Input/output"):
            names(mountpoint)
        assert given(mount) >= 20 * MIB
        with pytest.raises(OSError, match="Input/output"):
            (mountpoint / "image.part.00").read_bytes()


def kill_who_lists(mount: Mount, lister: "subprocess.Popen[bytes]") -> None:
    lister.kill()
    lister.wait()
    mount.umount()


def terminate(mount: Mount, _: object) -> None:
    os.kill(mount.pid, signal.SIGTERM)


def crash(mount: Mount, _: object) -> None:
    mount.kill()


@pytest.mark.parametrize("end", [kill_who_lists, terminate, crash], ids=lambda end: end.__name__)
@pytest.mark.parametrize("parts", [1, 4])
def test_the_end_may_come_at_any_moment(
    image: Path,
    mountpoint: Path,
    end: Callable[[Mount, "subprocess.Popen[bytes]"], None],
    parts: int,
) -> None:
    with (
        mounted(image, mountpoint, *OPTIONS) as mount,
        subprocess.Popen(
            [tool("ls"), mountpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as lister,
    ):
        assert eventually(lambda: given(mount) >= parts * 10 * MIB)
        end(mount, lister)
        assert ended(mount.pid, END_SECONDS)
        assert not is_mounted(mountpoint)
