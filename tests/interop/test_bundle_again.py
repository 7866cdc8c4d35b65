"""`bundlefs bundle` into a folder that has a bundle, or what a broken off run has left of one."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.interop.back import done, leftovers, refused
from tests.interop.bundled import (
    FAST,
    MIB,
    PART,
    PROMPT,
    SLOW,
    parts_in,
    piped,
    running,
    stamps,
    undone,
    wait_for,
)
from tests.support.folders import contents
from tests.support.keys import KeyPair
from tests.support.mounts import COMMAND_SECONDS


@pytest.mark.parametrize(
    ("how", "part"),
    [
        (signal.SIGKILL, 0),
        (signal.SIGKILL, 2),
        (signal.SIGKILL, 4),
        (signal.SIGINT, 1),
        (signal.SIGTERM, 3),
    ],
)
def test_a_run_that_ended_goes_on(
    how: signal.Signals, part: int, slow: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    options = (*SLOW, "--user-key", user_keys.private)
    dest = tmp_path / "dest"
    with running("bundle", *options, slow, dest) as process:
        wait_for(process, dest / f"image.part.0{part}")
        process.send_signal(how)
        process.wait(PROMPT)
        before = parts_in(dest)
        assert process.returncode != 0
    assert not (dest / "image.manifest.xml").exists()
    if how == signal.SIGINT:
        assert not [name for name in leftovers(dest) if name.startswith(".")]
    whole = [name for name in before if not name.startswith(".")]
    kept = stamps(dest, whole)
    done("bundle", *options, slow, dest)
    after = contents(dest)
    assert {name: after[name] for name in whole} == {name: before[name] for name in whole}
    assert sorted(after) == ["image.manifest.xml", *(f"image.part.0{n}" for n in range(6))]
    undone(dest, user_keys, slow)
    if how == signal.SIGINT:
        # Else the state was not saved on the way out: the same bytes may be written again.
        assert stamps(dest, whole) == kept


def test_parts_that_the_state_knows_are_kept(
    slow: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """Killed when the state was saved: no part of before is written again."""
    options = (*SLOW, "--user-key", user_keys.private)
    dest, state = tmp_path / "dest", tmp_path / "state"
    with running("bundle", *options, "--state", state, slow, dest) as process:
        wait_for(process, dest / "image.part.01")
        begun = state.stat().st_mtime_ns
        # Saves are two seconds apart, and that is longer than all of this takes.
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.2)
        whole = [name for name in leftovers(dest) if not name.startswith(".")]
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + COMMAND_SECONDS
        while state.stat().st_mtime_ns == begun and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert len(whole) >= 2
    kept = stamps(dest, whole)
    done("bundle", *options, "--state", state, slow, dest)
    assert stamps(dest, list(kept)) == kept
    undone(dest, user_keys, slow)


def test_again_is_the_same_and_costs_nothing(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, list(parts_in(dest)))
    start = time.monotonic()
    done("bundle", *FAST, image, dest)
    assert time.monotonic() - start < PROMPT
    assert contents(dest) == before
    assert stamps(dest, list(kept)) == kept


def test_another_folder_gets_the_same_bundle(image: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        done("bundle", *FAST, image, tmp_path / name)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_a_region_more_leaves_the_parts_alone(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, list(parts_in(dest)))
    done("bundle", *FAST, "--region", "us-east-1", "--region", "cn-north-1", image, dest)
    after = contents(dest)
    assert stamps(dest, list(kept)) == kept
    assert set(after) - set(before) == {"image.cn-north-1.manifest.xml"}
    assert {name: after[name] for name in before} == before


def test_parts_that_are_damaged_missing_or_foreign_are_replaced(
    image: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, ["image.part.03"])
    (dest / "image.part.00").write_bytes(bytes(PART))
    (dest / "image.part.01").unlink()
    with (dest / "image.part.02").open("r+b") as part:
        part.seek(77)
        part.write(b"X")
    (dest / "image.manifest.xml").write_text("<manifest/>")
    (dest / "notes.txt").write_text("mine")
    done("bundle", *FAST, image, dest)
    assert contents(dest) == before | {"notes.txt": b"mine"}
    assert stamps(dest, ["image.part.03"]) == kept


def test_a_changed_image_gives_a_new_bundle(
    image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(image, disk)
    options = (*FAST, "--user-key", user_keys.private)
    done("bundle", *options, disk, dest)
    before = contents(dest)
    with disk.open("r+b") as file:
        file.write(b"changed")
    ending = done("bundle", *options, disk, dest)
    assert "a new bundle with a new key" in ending.err
    after = contents(dest)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    undone(dest, user_keys, disk)


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_no_manifest_lies_over_parts_that_are_not_its_own(
    source: str, image: Path, tmp_path: Path
) -> None:
    """An older bundle is there. What breaks off over it must not look like a bundle."""
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(image, disk)
    done("bundle", *FAST, disk, dest)
    if source == "pipe":
        size = str(image.stat().st_size)
        code, said = piped("bundle", *FAST, "--size", size, "-", dest, data=bytes(12 * MIB))
        assert (code, said.count("\n")) == (1, 1)
    else:
        os.utime(disk)
        with running("bundle", *SLOW, disk, dest):
            old = (dest / "image.part.00").stat().st_ino
            deadline = time.monotonic() + COMMAND_SECONDS
            while (dest / "image.part.00").stat().st_ino == old and time.monotonic() < deadline:
                time.sleep(0.002)
    assert not (dest / "image.manifest.xml").exists()
    assert (dest / "image.part.03").exists()


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_a_manifest_of_a_region_that_is_not_asked_for_again(
    source: str, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """It stays as long as the parts are its own, and goes with them; others' are left alone."""
    dest = tmp_path / "dest"
    done("bundle", *FAST, "--region", "cn-north-1", image, dest)
    china = dest / "image.cn-north-1.manifest.xml"
    known = china.read_bytes()
    done("bundle", *FAST, image, dest)
    assert china.read_bytes() == known, "the same bundle goes on"
    others = (dest / "image.two.manifest.xml", dest / "image.cn-north-2.manifest.xml")
    others[0].write_bytes(known.replace(b">image.part", b">image.two.part"))
    others[1].write_bytes(b"nothing")
    key = ("--user-key", user_keys.private)
    if source == "file":
        said = done("bundle", *FAST, *key, image, dest).err
    else:
        size = ("--size", str(image.stat().st_size))
        code, said = piped("bundle", *FAST, *key, *size, "-", dest, data=image)
        assert code == 0
    assert not china.exists()
    assert f"{china} is removed: its parts are replaced" in said
    assert all(path.exists() for path in others)
    undone(dest, user_keys, image)


def test_a_command_that_is_refused_touches_nothing(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before = contents(dest)
    refused("bundle", *FAST, tmp_path / "no image", dest)
    refused("bundle", "--level", "10", image, dest, code=2)
    refused("bundle", "--size", "0", "-", dest, code=2)
    assert contents(dest) == before
