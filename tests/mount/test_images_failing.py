"""What is wrong with one image of a folder, or comes, goes and is slow, disturbs no other."""

import errno
import lzma
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.mount.commands import attempt, eventually, names
from tests.mount.shelves import BAD, OPTIONS, assert_undone, phases, refused
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, bundlefs, mounted, read_status
from tests.support.processes import ended
from tests.support.tools import run, tool

MIB = images.MIB
PART = 10 * MIB


# What is wrong with one


def test_a_bad_image_is_told_of_in_its_own_folder(shelf: Mount, shelf_folder: Path) -> None:
    bad = shelf.path / "bad"
    assert refused(bad) == errno.EIO
    status = read_status(bad)
    assert status["phase"] == "failed"
    assert status["error"].startswith(BAD.format(shelf_folder / "bad"))
    assert attempt("status", bad).code == 1
    assert attempt("status", shelf.path).code == 0
    assert shelf.status()["error"] is None
    assert names(shelf.path) == ["bad", "one.img", "two.xz"]
    assert len(names(shelf.path / "one.img")) == 4
    assert read_status(shelf.path / "one.img")["error"] is None


def test_a_bad_image_that_is_mended_is_there_without_a_new_mount(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    bad = shelf.path / "bad"
    assert refused(bad) == refused(bad) == errno.EIO
    images.random_image(shelf_folder / "bad", MIB)
    assert eventually(lambda: bad.stat().st_ino != 0 and phases(shelf)["bad"] == "unopened")
    shutil.copytree(bad, tmp_path / "copy")
    assert_undone(tmp_path / "copy", shelf_folder / "bad", user_keys)


def test_an_image_that_changes_fails_alone_and_stays_failed(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    one, two = shelf.path / "one.img", shelf.path / "two.xz"
    assert (one / "image.part.00").stat().st_size == PART
    with (shelf_folder / "one.img").open("r+b") as image:
        image.write(b"changed")
    for _ in range(2):
        # The kernel looks a stale name up again: what it finds must not be another bundle.
        with pytest.raises(OSError, match="Stale file handle"):
            (one / "image.part.01").read_bytes()
    assert read_status(one)["phase"] == "failed"
    assert len(names(two)) == 2
    # Under another name it is another bundle, which nobody takes for the first one.
    (shelf_folder / "one.img").rename(shelf_folder / "anew")
    assert names(shelf.path) == ["anew", "bad", "two.xz"]
    shutil.copytree(shelf.path / "anew", tmp_path / "copy")
    assert_undone(tmp_path / "copy", shelf_folder / "anew", user_keys)


def test_a_state_that_another_mount_has(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(shelf_folder / "one.img", tmp_path / "other", *options) as other:
        assert refused(shelf.path / "one.img") == errno.EIO
        assert str(other.path) in read_status(shelf.path / "one.img")["error"]
        assert len(names(shelf.path / "two.xz")) == 2
    assert eventually(lambda: attempt("status", shelf.path / "one.img").code == 0)
    assert len(names(shelf.path / "one.img")) == 4


def test_what_comes_and_goes(shelf: Mount, shelf_folder: Path) -> None:
    assert names(shelf.path / "two.xz")
    (shelf_folder / "two.xz").unlink()
    (shelf_folder / "bad").rename(shelf_folder / "worse")
    images.random_image(shelf_folder / "three", MIB)
    assert names(shelf.path) == ["one.img", "three", "worse"]
    assert eventually(lambda: not (shelf.path / "two.xz").exists())
    assert names(shelf.path / "three") == ["image.manifest.xml", "image.part.00"]


def test_looking_at_what_cannot_be_opened_adds_nothing_up(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(shelf_folder / "one.img", tmp_path / "other", *options):
        one = shelf.path / "one.img"
        inode = one.stat().st_ino
        for _ in range(200):
            assert refused(one) == errno.EIO
        # By a look of some time later it is tried again, and says nothing new.
        last = time.monotonic() + 3
        while time.monotonic() < last:
            assert refused(one) == errno.EIO
        assert one.stat().st_ino == inode
        assert names(shelf.path / "two.xz")
        log = (tmp_path / "mnt.log").read_text()
        assert len([line for line in log.splitlines() if " ERROR" in line]) == 1
        assert (shelf.path / "two.xz").stat().st_ino < inode + (4 << 40)


def test_an_empty_file_is_shown_once_it_has_content(
    shelf: Mount, shelf_folder: Path, tmp_path: Path
) -> None:
    (shelf_folder / "bad").unlink()
    assert names(shelf.path) == ["one.img", "two.xz"]
    run([tool("rclone"), "copy", shelf.path, tmp_path / "copy"])
    assert names(tmp_path / "copy") == ["one.img", "two.xz"]
    images.random_image(shelf_folder / "empty", MIB)
    assert names(shelf.path) == ["empty", "one.img", "two.xz"]
    assert len(names(shelf.path / "empty")) == 2
    # Emptied, it does not look as if it were gone: who mirrors would delete what was uploaded.
    os.truncate(shelf_folder / "empty", 0)
    assert names(shelf.path) == ["empty", "one.img", "two.xz"]
    with pytest.raises(OSError, match="Stale file handle"):
        (shelf.path / "empty/image.part.00").read_bytes()


def test_what_cannot_be_looked_at_does_not_look_as_if_it_were_gone(
    shelf_folder: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    with (
        mounted(shelf_folder / "one.img", away, *OPTIONS, "--state", "none") as other,
        mounted(shelf_folder, tmp_path / "mnt", *OPTIONS) as mount,
    ):
        assert names(mount.path) == ["bad", "one.img", "two.xz"]
        os.kill(other.pid, signal.SIGKILL)
        assert ended(other.pid, 20)
        # A file of a dead mount: nobody can tell whether it is one.
        (shelf_folder / "link").symlink_to(away / "image.part.00")
        assert names(mount.path) == ["bad", "link", "one.img", "two.xz"]
        assert refused(mount.path / "link")
        bundlefs("umount", "--lazy", away)
        # Now it leads nowhere.
        assert eventually(lambda: names(mount.path) == ["bad", "one.img", "two.xz"])


# While one is opened


def test_an_image_that_takes_long_to_open_holds_up_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    images.random_image(folder / "fast", MIB)
    stream = lzma.compress(bytes(64 * MIB), preset=0)
    with (folder / "slow").open("wb") as file:
        file.writelines([stream] * 1000)
    with (
        mounted(folder, tmp_path / "mnt", *OPTIONS, "--state", "none") as mount,
        subprocess.Popen(["ls", mount.path / "slow"], stderr=subprocess.PIPE, text=True) as listing,
    ):
        assert eventually(lambda: phases(mount).get("slow") == "unpacking")
        assert read_status(mount.path / "slow")["phase"] == "unpacking"
        assert names(mount.path) == ["fast", "slow"]
        assert len(names(mount.path / "fast")) == 2
        os.kill(mount.pid, signal.SIGTERM)
        assert ended(mount.pid, 20)
        assert "Transport endpoint is not connected" in listing.communicate(timeout=20)[1]
