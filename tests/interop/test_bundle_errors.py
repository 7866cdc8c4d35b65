"""`bundlefs bundle` where there can be no bundle: one line that says why."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.interop.back import done, leftovers, refused, the_line
from tests.interop.bundled import (
    FAST,
    MIB,
    PART,
    PROMPT,
    SLOW,
    piped,
    running,
    stamps,
    undone,
    wait_for,
)
from tests.mount.commands import AS_USER, ROOT, users_folder
from tests.support.folders import tiny
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, settings
from tests.support.tools import run


@pytest.mark.parametrize("sized", [True, False])
def test_a_full_disk(*, sized: bool, image: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    options = (*FAST, "--user-key", user_keys.private)
    with tiny(tmp_path / "disk", 2 * PART + 3 * MIB) as disk:
        start = time.monotonic()
        if sized:
            size = ("--size", str(image.stat().st_size))
            code, said = piped("bundle", *options, *size, "-", disk / "dest", data=image)
            assert code == 1
            line = the_line(said)
        else:
            line = refused("bundle", *options, image, disk / "dest")
        assert time.monotonic() - start < PROMPT
        assert "No space left" in line
        assert "image.part.02" in line
        assert leftovers(disk / "dest") == ["image.part.00", "image.part.01"]
        run(["mount", "-o", "remount,size=80m", disk])
        kept = stamps(disk / "dest", leftovers(disk / "dest"))
        done("bundle", *options, image, disk / "dest")
        undone(disk / "dest", user_keys, image)
        if not sized:
            assert stamps(disk / "dest", list(kept)) == kept


@pytest.mark.parametrize("where", ["a file", "below a file", "read-only"])
def test_a_folder_that_cannot_be(where: str, image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if where == "read-only":
        with tiny(tmp_path / "disk", 64 * MIB) as disk:
            run(["mount", "-o", "remount,ro", disk])
            line = refused("bundle", *FAST, image, disk)
    else:
        dest = tmp_path / "file" if where == "a file" else tmp_path / "file" / "dest"
        line = refused("bundle", *FAST, image, dest)
    assert str(tmp_path) in line
    wanted = {"a file": "File exists", "below a file": "Not a directory", "read-only": "Read-only"}
    assert wanted[where] in line


def test_a_folder_of_somebody_else(image: Path) -> None:
    with users_folder() as folder:
        shutil.copy(image, folder / "disk")
        (folder / "disk").chmod(0o644)
        dest = folder / "dest"
        dest.mkdir(mode=0o755)
        if not ROOT:
            dest.chmod(0o555)
        env = {"XDG_STATE_HOME": str(folder / "mnt")}
        line = refused("bundle", *FAST, folder / "disk", dest, program=AS_USER, env=env)
        assert "Permission denied" in line
        assert str(dest) in line
        assert leftovers(dest) == []


def test_a_part_that_is_a_folder(image: Path, tmp_path: Path) -> None:
    (tmp_path / "dest" / "image.part.01").mkdir(parents=True)
    line = refused("bundle", *FAST, image, tmp_path / "dest")
    assert "image.part.01" in line
    assert leftovers(tmp_path / "dest") == ["image.part.00", "image.part.01"]


def test_an_image_that_changes_meanwhile(slow: Path, tmp_path: Path) -> None:
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(slow, disk)
    with running("bundle", *SLOW, disk, dest) as process:
        wait_for(process, dest / "image.part.01")
        os.utime(disk)
        _, err = process.communicate(timeout=PROMPT)
        assert process.returncode == 1
    line = err.decode().splitlines()[-1]
    assert line.startswith("bundlefs: ")
    assert "changed" in line
    assert "mtime" in line
    assert set(leftovers(dest)) <= {f"image.part.0{number}" for number in range(5)}


@pytest.mark.parametrize(
    "words",
    [
        ("--level", "10"),
        ("--level", "six"),
        ("--jobs", "0"),
        ("--size", "many", "-"),
        ("--size", "0", "-"),
        ("--size", "5", "IMAGE"),
        ("--region", "mars-1"),
        ("--account", "123"),
        ("--prefix", "a/b"),
        ("--user-key", "/nowhere.pem"),
        ("--cache-size", "1G"),
        ("--eager",),
        ("--frobnicate",),
    ],
)
def test_bad_options_are_wrong_usage(words: tuple[str, ...], image: Path, tmp_path: Path) -> None:
    named = [str(image) if word == "IMAGE" else word for word in words]
    given = named if words[-1] in ("-", "IMAGE") else [*named, str(image)]
    ended = subprocess.run(
        [*BUNDLEFS, "bundle", *given, str(tmp_path / "dest")],
        env=settings(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROMPT,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended
    assert ended.stderr.splitlines()[-1].startswith("bundlefs")
    assert not (tmp_path / "dest").exists() or leftovers(tmp_path / "dest") == []


def test_no_account(image: Path, tmp_path: Path) -> None:
    env = {"BUNDLEFS_ACCOUNT": ""}
    line = refused("bundle", image, tmp_path / "dest", code=2, env=env)
    assert "--account" in line
