"""An image whose storage hangs disturbs no other, tells so, goes on, and can be unmounted."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mount.commands import eventually, names
from tests.mount.hanging_disk import Storage, hanging_disk
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import (
    BUNDLEFS,
    Mount,
    bundlefs,
    is_mounted,
    mounted,
    read_status,
    settings,
)
from tests.support.processes import ended
from tests.support.tools import tool

MIB = images.MIB
SIZE = 24 * MIB
MIDDLE = 12 * MIB
HUNG = 9
"""More passes than have their turn at a time."""
READERS = 70
"""More readers than a mount ever had threads for."""
PROMPT = 60
"""Seconds: what is not held up takes a few, on a busy machine more."""
END_SECONDS = 15
OPTIONS = ("--level", "1", "--cache-size", "0")


@dataclass(frozen=True, slots=True)
class Ground:
    """A folder of images: `good` on a disk of its own, `slow` and more on one that hangs."""

    folder: Path
    content: Path
    storage: Storage

    @property
    def good(self) -> Path:
        return self.folder / "good"


@contextmanager
def ground(tmp_path: Path, slow: int, *words: str) -> Iterator[Ground]:
    folder = tmp_path / "images"
    folder.mkdir()
    images.random_image(folder / "good", SIZE, "good")
    content = images.random_image(tmp_path / "content", SIZE, "slow")
    with hanging_disk(tmp_path / "disk", content, *words) as storage:
        for number in range(slow):
            (folder / f"slow{number}").symlink_to(storage.folder / f"slow{number}")
        yield Ground(folder, content, storage)


def listing(folder: Path) -> subprocess.Popen[str]:
    """List a folder in a process of its own, which may hang and be killed."""
    return subprocess.Popen(
        [tool("ls"), folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def opened(*folders: Path) -> None:
    """Have images opened, of which no byte is bundled by that."""
    for folder in folders:
        assert not (folder / "nothing").exists()


def own(mount: Mount, name: str) -> dict[str, Any]:
    return read_status(mount.path / name)


def silent(mount: Mount, name: str) -> bool:
    return bool(own(mount, name)["storage_silent_seconds"])


def within(seconds: float, *words: str | Path) -> str:
    """Run a command that must succeed in that time."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_undone(parts: Path, image: Path, keys: KeyPair) -> None:
    manifest = parts / "image.manifest.xml"
    found = sorted(parts.glob("image.part.*"))
    assert oracles.part_digests(manifest) == oracles.sha1sum(found)
    oracles.compare_streaming(found, oracles.secrets(manifest, keys.private), image)


def test_one_that_hangs_in_its_pass_stops_no_other_and_goes_on(
    tmp_path: Path, user_keys: KeyPair
) -> None:
    log = tmp_path / "log"
    options = (*OPTIONS, "--user-key", user_keys.private, "--log-file", log)
    with (
        ground(tmp_path, 1) as made,
        mounted(made.folder, tmp_path / "mnt", *options) as mount,
    ):
        opened(mount.path / "slow0")
        made.storage.hang(MIDDLE)
        slow = listing(mount.path / "slow0")
        assert eventually(lambda: silent(mount, "slow0"), PROMPT)
        within(PROMPT, tool("cp"), "-r", mount.path / "good", tmp_path / "copy")
        assert_undone(tmp_path / "copy", made.good, user_keys)
        # Told in each place, and no time is invented.
        told = bundlefs("status", mount.path / "slow0")
        assert re.search(r"^waiting +storage has not answered for \d+ s", told, re.MULTILINE)
        assert "0 %" not in told
        assert not re.search(r"<\d", told)
        assert re.search(
            r"slow0: indexing, \d+ %, storage has not answered for \d+ s",
            bundlefs("status", mount.path),
        )
        assert mount.status()["storage_silent_seconds"] >= 1
        assert own(mount, "good")["storage_silent_seconds"] == 0
        metrics = (mount.path / "slow0/.bundlefs/metrics").read_text()
        assert re.search(r"^bundlefs_storage_silent_seconds\{.*\} [1-9]", metrics, re.MULTILINE)
        assert eventually(lambda: "storage has not answered" in log.read_text(), PROMPT)
        assert slow.poll() is None
        made.storage.release()
        assert slow.communicate(timeout=PROMPT)[0].splitlines()[0] == "image.manifest.xml"
        shutil.copytree(mount.path / "slow0", tmp_path / "later")
        assert_undone(tmp_path / "later", made.content, user_keys)
        assert not silent(mount, "slow0")
        assert eventually(lambda: "storage answers again" in log.read_text(), PROMPT)
        assert log.read_text().count("has not answered") == 1


def test_more_than_have_a_turn_hang_and_all_go_on(tmp_path: Path, user_keys: KeyPair) -> None:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with (
        ground(tmp_path, HUNG) as made,
        mounted(made.folder, tmp_path / "mnt", *options) as mount,
    ):
        opened(*(mount.path / f"slow{number}" for number in range(HUNG)))
        made.storage.hang(MIDDLE)
        slow = [listing(mount.path / f"slow{number}") for number in range(HUNG)]
        assert eventually(lambda: all(silent(mount, f"slow{n}") for n in range(HUNG)), PROMPT)
        within(PROMPT, tool("cp"), "-r", mount.path / "good", tmp_path / "copy")
        assert_undone(tmp_path / "copy", made.good, user_keys)
        made.storage.release()
        assert [len(one.communicate(timeout=PROMPT)[0].splitlines()) for one in slow] == [4] * HUNG
        shutil.copytree(mount.path / "slow3", tmp_path / "later")
        assert_undone(tmp_path / "later", made.content, user_keys)


def test_one_that_hangs_as_it_is_taken_up_again(tmp_path: Path, user_keys: KeyPair) -> None:
    """All that was sealed is read again, for its digest: others do not wait for that."""
    options = (*OPTIONS, "--user-key", user_keys.private)
    with ground(tmp_path, HUNG, "direct") as made:
        with mounted(made.folder, tmp_path / "mnt", *options) as mount:
            for number in range(HUNG):
                assert (mount.path / f"slow{number}/image.part.00").stat().st_size
        with mounted(made.folder, tmp_path / "mnt", *options) as mount:
            opened(*(mount.path / f"slow{number}" for number in range(HUNG)))
            made.storage.hang(MIDDLE // 3)
            slow = [listing(mount.path / f"slow{number}") for number in range(HUNG)]
            assert eventually(lambda: all(silent(mount, f"slow{n}") for n in range(HUNG)), PROMPT)
            within(PROMPT, tool("cp"), "-r", mount.path / "good", tmp_path / "copy")
            assert_undone(tmp_path / "copy", made.good, user_keys)
            made.storage.release()
            for one in slow:
                assert len(one.communicate(timeout=PROMPT)[0].splitlines()) == 4
            shutil.copytree(mount.path / "slow0", tmp_path / "later")
            assert_undone(tmp_path / "later", made.content, user_keys)


def test_readers_of_one_that_hangs_hold_up_no_other_reader(tmp_path: Path) -> None:
    """What lies behind the frontier is made again, from storage that hangs by now."""
    with (
        ground(tmp_path, 1, "direct") as made,
        mounted(made.folder, tmp_path / "mnt", *OPTIONS) as mount,
        ThreadPoolExecutor(READERS) as pool,
    ):
        slow = mount.path / "slow0"
        assert len(names(slow)) == len(names(mount.path / "good")) == 4
        whole = b"".join(part.read_bytes() for part in sorted(slow.glob("*.part.*")))
        # What was read last is still in memory.
        assert len((mount.path / "good/image.part.00").read_bytes())
        drop(mount.path)
        made.storage.hang()

        def read(number: int) -> bytes:
            offset = number * len(whole) // READERS
            with (slow / f"image.part.{offset // (10 * MIB):02d}").open("rb", buffering=0) as part:
                return os.pread(part.fileno(), 1000, offset % (10 * MIB))

        reads = [pool.submit(read, number) for number in range(READERS)]
        try:
            assert eventually(lambda: silent(mount, "slow0"), PROMPT)
            within(PROMPT, tool("cp"), "-r", mount.path / "good", tmp_path / "copy")
            assert len(names(tmp_path / "copy")) == 4
        finally:
            made.storage.release()
        for number, found in enumerate(reads):
            offset = number * len(whole) // READERS
            end = min(offset + 1000, (offset // (10 * MIB) + 1) * 10 * MIB)
            assert found.result(PROMPT) == whole[offset:end]


def drop(mountpoint: Path) -> None:
    """Drop what the kernel has cached of the files of a mount."""
    for part in mountpoint.rglob("*.part.*"):
        with part.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("how", ["umount", "SIGTERM"])
@pytest.mark.parametrize("kind", ["folder", "image"])
def test_an_unmount_does_not_wait_for_it(tmp_path: Path, how: str, kind: str) -> None:
    with ground(tmp_path, 1) as made:
        image = made.folder if kind == "folder" else made.folder / "slow0"
        with mounted(image, tmp_path / "mnt", *OPTIONS) as mount:
            shown = mount.path / "slow0" if kind == "folder" else mount.path
            opened(shown)
            made.storage.hang(13 * MIB)
            # It has what it asked for; the blocks that were begun ahead of it hang.
            with (shown / "image.part.00").open("rb", buffering=0) as part:
                assert part.read(1)
            assert eventually(lambda: bool(read_status(shown)["storage_silent_seconds"]), PROMPT)
            begun = time.monotonic()
            if how == "umount":
                within(END_SECONDS, tool("umount"), mount.path)
            else:
                slow = listing(shown)
                assert eventually(lambda: is_asleep(slow.pid))
                os.kill(mount.pid, signal.SIGTERM)
                assert slow.communicate(timeout=PROMPT)[1]
            assert ended(mount.pid, END_SECONDS), time.monotonic() - begun
            assert not is_mounted(mount.path)
        # What was made is kept, and serves the next mount.
        made.storage.release()
        with mounted(image, tmp_path / "mnt", *OPTIONS) as mount:
            shown = mount.path / "slow0" if kind == "folder" else mount.path
            assert len(names(shown)) == 4
            assert read_status(shown)["phase"] == "complete"


def is_asleep(pid: int) -> bool:
    """Whether a process waits in the kernel for a file system."""
    return "request_wait" in Path(f"/proc/{pid}/wchan").read_text()


def test_an_unmount_while_readers_wait_for_it(tmp_path: Path) -> None:
    """Behind the frontier, and in the foreground, where Python itself ends the program."""
    with ground(tmp_path, 1, "direct") as made:
        mountpoint = tmp_path / "mnt"
        mountpoint.mkdir()
        words = ["mount", "-f", "--state=none", *OPTIONS, made.folder / "slow0", mountpoint]
        process = subprocess.Popen(
            [*BUNDLEFS, *map(str, words)], env=settings(), stderr=subprocess.PIPE, text=True
        )
        assert eventually(lambda: is_mounted(mountpoint) or process.poll() is not None, PROMPT)
        assert len(names(mountpoint)) == 4
        # More than what is kept of the blocks that were sealed last.
        script = "import sys; open(sys.argv[1], 'rb').read(1)"
        drop(mountpoint)
        made.storage.hang()
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", script, mountpoint / f"image.part.{number:02d}"],
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        try:
            process.terminate()
            assert eventually(lambda: not is_mounted(mountpoint), END_SECONDS)
            for reader in readers:
                reader.communicate(timeout=END_SECONDS)
        finally:
            # The kernel itself lets nobody go who has asked such a disk.
            made.storage.release()
        _, told = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0, told
        assert "Traceback" not in told
