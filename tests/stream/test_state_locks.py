"""Locks, saves and places of state files: who may have one, when it is written, and where it is."""

import fcntl
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bundlefs import Bundle, Metadata
from bundlefs.base.errors import StateError
from bundlefs.codec.cbc import CbcState
from bundlefs.state import file as statefile
from bundlefs.state import saved
from bundlefs.state.index import Totals
from bundlefs.state.lock import LockedError, lock_holder, take_lock
from bundlefs.state.open import forget
from bundlefs.state.places import default_folder, default_path
from bundlefs.state.saved import StateFile
from tests.stream.states import WANTED, blocks_in, grow, open_file, opened, read, secret
from tests.support import images
from tests.support.folders import filled
from tests.support.tools import ACCOUNT, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "deeper" / "disk.state"


# Locks


def test_a_second_one_is_refused_and_told_who(path: Path) -> None:
    with opened(path) as state:
        state.sign("process 4711, mounted on /mnt/a")
        for fresh in (False, True):
            with pytest.raises(LockedError, match=r"in use by process 4711, mounted on /mnt/a; un"):
                open_file(path, fresh=fresh)
        with pytest.raises(LockedError, match="4711"):
            forget(path)
        assert lock_holder(path) == "process 4711, mounted on /mnt/a"
    assert lock_holder(path) is None
    with opened(path):
        assert lock_holder(path) == "a mount", "the one before has left no name"


def test_one_of_many_wins(path: Path) -> None:
    start = threading.Barrier(8)
    kept: list[StateFile] = []

    def attempt() -> bool:
        start.wait(10)
        try:
            kept.append(open_file(path))
        except LockedError:
            return False
        kept[-1].sign("it")
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [future.result() for future in [pool.submit(attempt) for _ in range(8)]]
    for state in kept:
        state.close()
    assert won.count(True) == 1


def test_who_only_looks_keeps_nobody_out(path: Path) -> None:
    with opened(path):
        pass
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            lock_holder(path)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(look)
        try:
            for _ in range(50):
                open_file(path).close()
        finally:
            done.set()


def test_forgotten_between_opening_and_locking(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that is gone would keep nobody out."""
    with opened(path):
        pass
    flock = fcntl.flock

    def forgotten_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        forget(path)
        fcntl.flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", forgotten_first)
    with closing(take_lock(path)), pytest.raises(LockedError):
        take_lock(path)


def test_forget_leaves_nothing(path: Path) -> None:
    with opened(path):
        pass
    left = path.with_name(f".{path.name}.abcd_123.new")
    left.write_bytes(b"of a process that was killed")
    other = path.with_name(f".{path.name}.b.abcd_123.new")
    other.write_bytes(b"of another state")
    forget(path)
    assert list(path.parent.iterdir()) == [other]
    with pytest.raises(StateError, match="No such file"):
        forget(path)


def test_what_a_kill_left_is_swept(path: Path) -> None:
    with opened(path):
        pass
    left = path.with_name(f".{path.name}.abcd_123.new")
    left.write_bytes(b"half of it")
    with opened(path):
        assert not left.exists()


@pytest.mark.parametrize("data", [b"my notes\n", b"bundlefs-lock?", b"\0", b"process 1, gone"])
def test_a_file_in_the_place_of_the_lock_stays_as_it_is(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    lock = path.with_name("disk.state.lock")
    lock.write_bytes(data)
    for attempt in (lambda: open_file(path), lambda: forget(path)):
        with pytest.raises(StateError, match=f"{re.escape(str(lock))} would be its lock"):
            attempt()
    assert lock.read_bytes() == data
    assert lock_holder(path) is None
    assert lock.read_bytes() == data


@pytest.mark.parametrize(
    "data", [b"", b"bundlefs-lock\n", b"bundlefs-lock\nprocess 1, mounted on /a", b"bundlefs-"]
)
def test_a_lock_that_was_left_is_taken(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("disk.state.lock").write_bytes(data)
    with opened(path):
        assert lock_holder(path) == "a mount"


def test_a_lock_that_an_earlier_version_left(path: Path) -> None:
    path.parent.mkdir(parents=True)
    for data in (b"process 77, mounted on /mnt/x", b"process 77, bundling to dest"):
        path.with_name("disk.state.lock").write_bytes(data)
        secret(path, WANTED)


def test_a_fifo_in_the_place_of_the_lock(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path.with_name("disk.state.lock"))
    with pytest.raises(StateError, match="would be its lock"):
        open_file(path)


@pytest.mark.parametrize("number", [37, 95, 5])
def test_locks_that_are_not_to_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match=f"cannot lock .*: {os.strerror(number)}") as caught:
        open_file(path)
    assert "in use" not in str(caught.value)
    assert "--state" in str(caught.value)


# Saves


def test_saved_as_it_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as state:
        grow(state)
        state.progress()
        assert blocks_in(path) == 0, "the last save is too short ago"
        monkeypatch.setattr(state, "_pause", 0.0)
        state.progress()
        assert blocks_in(path) == 1
        monkeypatch.setattr(state, "_pause", 3600.0)
        state.index.append_last(5, CbcState(bytes(16), bytes(1015 % 16)), 1, Totals(1, "d", 1024))
        state.progress()
        assert blocks_in(path) == 2, "the end is always saved"


def test_no_room_to_begin(small_disk: Path) -> None:
    filled(small_disk)
    for fresh in (False, True):
        with pytest.raises(StateError, match="No space left on device; name another") as caught:
            open_file(small_disk / "disk.state", fresh=fresh)
        assert "\n" not in str(caught.value)
    names = {file.name for file in small_disk.iterdir()}
    assert names == {"ballast", "disk.state.lock"}


def test_no_room_to_go_on(small_disk: Path) -> None:
    """A file that cannot be written now is refused, and stays as it was."""
    path = small_disk / "disk.state"
    with opened(path) as first:
        before = path.read_bytes()
    ballast = filled(small_disk)
    with pytest.raises(StateError, match="No space left on device; name another place"):
        open_file(path)
    assert path.read_bytes() == before
    ballast.unlink()
    with opened(path) as second:
        assert second.secret == first.secret


def test_no_room_later(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_disk / "disk.state"
    monkeypatch.setattr(saved, "SAVE_SECONDS", 0.0)
    with opened(path) as state:
        ballast = filled(small_disk)
        state.sign("a name for which there is no room")
        for _ in range(3):
            grow(state)
            state.save()
        assert blocks_in(path) == 0
        [record] = caplog.records
        assert f"cannot save to {path}: No space left on device; after a crash" in record.message
        assert {file.name for file in small_disk.iterdir()} == {
            "ballast",
            "disk.state",
            "disk.state.lock",
        }
        ballast.unlink()
        state.save()
        assert blocks_in(path) == 3
    assert len(caplog.records) == 1


def test_it_is_written_when_something_has_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    replaced = statefile.replace

    def count(target: Path, data: bytes) -> None:
        written.append(target)
        replaced(target, data)

    monkeypatch.setattr(statefile, "replace", count)
    with opened(path) as state:
        assert len(written) == 1
        for _ in range(3):
            state.save()
        assert len(written) == 1
        read(state)
        state.save()
        state.save()
        assert len(written) == 3
        state.manifests["image.manifest.xml"] = "<manifest/>"
        state.save()
        state.save()
        assert len(written) == 4 == state.writes
    assert len(written) == 4, "nothing has changed since"


def test_a_bundle_from_beginning_to_end(path: Path, tmp_path: Path) -> None:
    image = images.text_image(tmp_path / "disk", 4096)
    with opened(path) as state:
        with Bundle.from_image(image, Metadata(ACCOUNT), level=1, state=state) as bundle:
            assert state.writes == 1
            for name in bundle.names():
                bundle.read(name, 0, 1 << 20)
            # Before the first byte, at the end of the pass, and with the manifest.
            assert state.writes == 4
        assert state.writes == 4
    assert state.writes == 4
    with opened(path) as again, Bundle.from_image(image, Metadata(ACCOUNT), state=again) as bundle:
        assert len(bundle.names()) == 2
    assert again.writes == 1, "to take it up; it may have been moved"


# Places


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_folder() == tmp_path / "state-home" / "bundlefs"
    for ignored in ("", "relative/place"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert default_folder() == Path("/var/lib/bundlefs")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.local/state/bundlefs")


def test_default_path(tmp_path: Path) -> None:
    image = images.text_image(tmp_path / "disk", 10)
    link = tmp_path / "link"
    link.symlink_to(image)
    path = default_path(image, "image")
    assert default_path(link, "image") == path
    assert default_path(tmp_path / "x" / ".." / "disk", "image") == path
    assert default_path(image, "other") != path
    assert default_path(tmp_path / "disk2", "image") != path
    assert path.name.startswith("disk-")


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "\udcff", "100%", "[a]*?"])
def test_any_name_of_an_image(tmp_path: Path, name: str) -> None:
    path = default_path(images.text_image(tmp_path / name, 10), "image")
    with opened(path):
        path.with_name(f".{path.name}.abcd_123.new").write_bytes(b"left behind")
    with opened(path):
        assert len(list(path.parent.iterdir())) == 2
    forget(path)
    assert list(path.parent.iterdir()) == []


def test_a_device_goes_by_the_name_that_it_is_given(tmp_path: Path) -> None:
    """/dev/VOLUMES/NAME points to another number after a reboot."""
    device, link = tmp_path / "dm-1", tmp_path / "volume"
    run(["mknod", device, "b", "7", "255"])
    link.symlink_to(device)
    before = default_path(link, "image")
    link.unlink()
    link.symlink_to(device.rename(tmp_path / "dm-2"))
    assert default_path(link, "image") == before
    assert json.dumps(before.name).startswith('"volume-')
