"""`bundlefs inspect` of mounts, of what is in them, and what it prints on a terminal."""

import json
from pathlib import Path

from tests.mount.commands import attempt, terminal
from tests.mount.opened import opened
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, mounted
from tests.support.systems import X64, disk, system
from tests.support.tools import ACCOUNT


def test_a_mount_is_told_and_nothing_is_made_for_it(tmp_path: Path, mountpoint: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = system(folder / "disk.raw", X64)
    with mounted(path, mountpoint) as mount:
        document = json.loads(bundlefs("inspect", "--json", mountpoint))
        assert (document["what"], document["mount"]["kind"]) == ("mount", "bundle")
        assert document["mount"]["status"]["image"] == str(path)
        assert document["mount"]["status"]["pid"] == mount.pid
        assert mount.status()["phase"] == "idle"
        text = bundlefs("inspect", mountpoint)
        assert "shows: an image, shown as a bundle" in text
        assert "phase: idle" in text
        # The image below it is as it was, and can be looked at meanwhile.
        assert json.loads(bundlefs("inspect", "--json", path))["what"] == "disk"
    with mounted(folder, mountpoint):
        document = json.loads(bundlefs("inspect", "--json", mountpoint))
        assert document["mount"]["kind"] == "images"
        bundlefs("inspect", mountpoint / "disk.raw")


def test_what_an_instance_will_not_start_from_is_warned_of(tmp_path: Path) -> None:
    path, dest = tmp_path / "disk.raw", tmp_path / "bundle"
    dest.mkdir()
    disk(path, [("83", system(tmp_path / "root", X64))], "dos")
    words = ("bundle", "--account", ACCOUNT, "--arch", "x86_64", "--quiet")
    done = attempt(*words, path, dest)
    assert done.code == 0
    assert f"bundlefs: warning: {path} has a partition table (MBR) and no boot loader" in done.err
    with path.open("r+b") as file:
        file.write(b"\xeb\x63\x90")
    assert "warning" not in attempt(*words, "--fresh", path, dest).err
    done = attempt(*words, "--fresh", "--kernel", "aki-12345678", path, dest)
    assert (
        f"bundlefs: warning: {path} has a partition table (MBR), and the bundle names" in done.err
    )


def test_an_opened_bundle_and_the_disk_in_it(tmp_path: Path, user_keys: KeyPair) -> None:
    path, dest = system(tmp_path / "disk.raw", X64), tmp_path / "bundle"
    dest.mkdir()
    key = ("--user-key", user_keys.private)
    bundlefs("bundle", "--account", ACCOUNT, "--arch", "x86_64", *key, path, dest)
    with opened(dest, tmp_path / "mnt", *key) as mount:
        document = json.loads(bundlefs("inspect", "--json", mount.path))
        assert document["mount"]["kind"] == "opened"
        disk = json.loads(bundlefs("inspect", "--json", mount.disk))["disk"]
        assert disk["content"]["kind"] == "ext4"
        assert disk["architecture"] == "x86_64"


def test_a_terminal_gets_a_table_of_80_columns(tmp_path: Path) -> None:
    path = images.random_image(tmp_path / ("long-name-" * 12), 1 << 20)
    with terminal("inspect", "--quiet", path) as shown:
        assert shown.finish() == 0
    lines = shown.shown.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert "form          raw" in lines
