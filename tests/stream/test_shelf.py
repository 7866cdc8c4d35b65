"""A folder of images, without FUSE: what is there, what is opened, what is begun anew."""

import errno
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from bundlefs.base.errors import (
    ClosedError,
    ImageChangedError,
    ImageError,
    InconsistentError,
    StateError,
    UnknownNameError,
)
from bundlefs.fuse import openings, shelved
from bundlefs.fuse.shelf import Shelf, ShelfStatus
from bundlefs.fuse.shelved import Passing
from bundlefs.fuse.views import View
from bundlefs.unbundling.view import OpenStatus

HANG = 60


class Made:
    """As much of a view as a shelf sees of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.phase = "complete"
        self.closed = False
        self.created_ns = 1
        self.rests = True
        self.error: Exception | None = None

    def status(self) -> OpenStatus:
        return OpenStatus(self.phase, str(self.path), 7, 3, "", None)

    def space(self) -> tuple[int, int]:
        return 7, 3

    def close(self) -> None:
        self.closed = True

    def idle(self) -> bool:
        return self.rests

    def failure(self) -> BaseException | None:
        return self.error

    def check(self) -> None:
        if self.error:
            raise self.error


class Opener:
    """Opens by making; raises `error` instead, waits for `gate` before."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.made: list[Any] = []
        self.error: Exception | None = None
        self.created_ns = 1
        self.path = Path()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: Path, number: int) -> Passing:
        self.calls.append((path.name, number))
        self.path = path
        assert self.gate.wait(HANG)
        if self.error:
            raise self.error
        self.made.append(Made(path))
        self.made[-1].created_ns = self.created_ns
        view: Passing = self.made[-1]
        return view


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def shelf(folder: Path, opener: Opener) -> Shelf:
    return Shelf(folder, opener)


def wait(future: Future[View[Any]]) -> BaseException | None:
    return future.exception(HANG)


def change(path: Path) -> None:
    """Write another image of the same length; its times differ whatever the clock's steps are."""
    path.write_bytes(b"other")
    now = time.time_ns()
    os.utime(path, ns=(now, now + 10**9))


def phases(shelf: Shelf) -> dict[str, str]:
    return {image["name"]: image["phase"] for image in shelf.status().images}


def test_files_that_are_not_hidden_are_listed_and_none_is_opened(
    shelf: Shelf, opener: Opener
) -> None:
    listed = shelf.scan()
    assert [name for name, _ in listed] == ["a", "b", "link"]
    assert len({number for _, number in listed}) == 3
    assert 0 not in {number for _, number in listed}
    assert shelf.scan() == listed
    assert [shelf.find(name) for name, _ in listed] == [number for _, number in listed]
    assert opener.calls == []
    assert phases(shelf) == dict.fromkeys(("a", "b", "link"), "unopened")


@pytest.mark.parametrize("name", [".hidden", "folder", "dangling", "pipe", "missing", "..", "."])
def test_what_is_no_image_has_no_number(shelf: Shelf, name: str) -> None:
    with pytest.raises(UnknownNameError):
        shelf.find(name)


def test_a_block_device_is_an_image(tmp_path: Path, opener: Opener) -> None:
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(7, 250))
    assert [name for name, _ in Shelf(tmp_path, opener).scan()] == ["disk"]


def test_what_comes_and_goes(shelf: Shelf, folder: Path) -> None:
    shelf.scan()
    (folder / "a").unlink()
    (folder / "c").write_bytes(b"new")
    # The link dangles now.
    assert [name for name, _ in shelf.scan()] == ["b", "c"]


def test_a_folder_that_is_gone_is_an_error_and_no_empty_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Shelf(tmp_path / "gone", Opener()).scan()


def test_an_image_is_opened_once(shelf: Shelf, opener: Opener) -> None:
    number = shelf.find("a")
    assert shelf.view(number) is None
    futures = [shelf.hold(number) for _ in range(10)]
    assert {id(future.result(HANG)) for future in futures} == {id(opener.made[0])}
    assert opener.calls == [("a", number)]
    assert shelf.view(number) is opener.made[0]
    assert shelf.find("a") == number
    assert phases(shelf) == {"a": "complete"}


def test_sums_and_space(shelf: Shelf) -> None:
    for name in ("a", "b"):
        shelf.hold(shelf.find(name)).result(HANG)
    status = shelf.status()
    assert isinstance(status, ShelfStatus)
    assert (status.image_size, status.sealed_bytes, status.phase) == (14, 6, "idle")
    assert shelf.space() == (14, 6)


def test_while_one_is_opened_others_are_too(shelf: Shelf, opener: Opener) -> None:
    opener.gate.clear()
    slow = shelf.hold(shelf.find("a"))
    other = shelf.hold(shelf.find("b"))
    assert set(phases(shelf).values()) == {"opening"}
    opener.gate.set()
    assert wait(slow) is wait(other) is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an image tried again at once."""
    monkeypatch.setattr(shelved, "RETRY_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_bad_image_is_tried_again_when_its_file_is_another(
    shelf: Shelf, folder: Path, opener: Opener
) -> None:
    opener.error = ImageError("bad")
    number = shelf.find("a")
    assert wait(shelf.hold(number)) is opener.error
    assert phases(shelf) == {"a": "failed"}
    assert shelf.find("a") == number
    assert wait(shelf.hold(number)) is opener.error
    assert len(opener.calls) == 1
    opener.error = None
    change(folder / "a")
    assert shelf.find("a") == number
    assert phases(shelf) == {"a": "unopened"}
    assert wait(shelf.hold(number)) is None
    assert phases(shelf) == {"a": "complete"}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "error",
    [
        StateError("locked"),
        OSError(errno.EMFILE, "Too many open files"),
        caused(ImageError("cannot open it"), OSError(errno.EMFILE, "Too many open files")),
        caused(ImageError("cannot unpack it"), OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=str,
)
def test_what_is_no_image_s_fault_is_tried_again(
    shelf: Shelf, opener: Opener, error: Exception
) -> None:
    opener.error = error
    number = shelf.find("a")
    assert wait(shelf.hold(number)) is error
    opener.error = None
    assert shelf.find("a") == number
    assert wait(shelf.hold(number)) is None


@pytest.mark.usefixtures("impatient")
def test_damaged_data_is_the_image_s_fault(shelf: Shelf, opener: Opener) -> None:
    opener.error = caused(ImageError("damaged"), OSError("Invalid data stream"))
    for _ in range(3):
        assert wait(shelf.hold(shelf.find("a"))) is opener.error
    assert len(opener.calls) == 1


def test_looks_do_not_add_up(
    shelf: Shelf, opener: Opener, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither tries, nor numbers, nor lines of the log."""
    opener.error = StateError("locked")
    for _ in range(100):
        assert wait(shelf.hold(shelf.find("a"))) is opener.error
    assert len(opener.calls) == 1
    monkeypatch.setattr(shelved, "RETRY_SECONDS", 0.0)
    for _ in range(100):
        assert wait(shelf.hold(shelf.find("a"))) is opener.error
    assert len(opener.calls) == 101
    assert shelf.find("b") == 2
    assert [record.getMessage() for record in caplog.records] == [f"{opener.path}: locked"]
    opener.error = StateError("locked by another")
    assert wait(shelf.hold(shelf.find("a"))) is opener.error
    assert len(caplog.records) == 2


# Names and images


def test_a_link_shows_the_image_that_it_leads_to(shelf: Shelf, opener: Opener) -> None:
    numbers = [shelf.find(name) for name in ("a", "link")]
    views = {id(shelf.hold(number).result(HANG)) for number in numbers}
    assert len(set(numbers)) == 2
    assert views == {id(opener.made[0])}
    assert len(opener.calls) == 1
    assert phases(shelf) == {"a": "complete", "link": "complete"}
    assert (shelf.status().image_size, shelf.space()) == (7, (7, 3))


def test_a_link_that_leads_elsewhere_has_failed_if_anybody_has_looked(
    shelf: Shelf, folder: Path
) -> None:
    a, link = shelf.find("a"), shelf.find("link")
    shelf.hold(link).result(HANG)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    for _ in range(2):
        assert shelf.find("link") == link
        with pytest.raises(ImageChangedError, match=rf"{folder / 'b'} now"):
            shelf.hold(link)
        (folder / "link").unlink()
        (folder / "link").symlink_to("a")
    assert phases(shelf) == {"a": "complete", "link": "failed"}
    assert wait(shelf.hold(a)) is None


def test_a_link_that_nobody_looked_into_may_lead_elsewhere(
    shelf: Shelf, folder: Path, opener: Opener
) -> None:
    link = shelf.find("link")
    shelf.hold(shelf.find("a")).result(HANG)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    assert shelf.find("link") == link
    shelf.hold(link).result(HANG)
    assert [made.path.name for made in opener.made] == ["a", "b"]


def test_an_empty_file_is_no_image_before_it_has_content(shelf: Shelf, folder: Path) -> None:
    (folder / "late").touch()
    assert [name for name, _ in shelf.scan()] == ["a", "b", "link"]
    with pytest.raises(UnknownNameError):
        shelf.find("late")
    (folder / "late").write_bytes(b"image")
    assert [name for name, _ in shelf.scan()] == ["a", "b", "late", "link"]


def test_an_image_that_was_emptied_does_not_look_as_if_it_were_gone(
    shelf: Shelf, folder: Path
) -> None:
    number = shelf.find("a")
    shelf.hold(number).result(HANG)
    (folder / "a").write_bytes(b"")
    assert shelf.find("a") == number
    assert "a" in [name for name, _ in shelf.scan()]


# What is let go of


class Few(Opener):
    """As many images can be open at a time as there are open files."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.now: dict[int, Any] = {}

    def __call__(self, path: Path, number: int) -> Passing:
        if len(self.now) == self.most:
            raise caused(ImageError("cannot open it"), OSError(errno.EMFILE, "Too many open files"))
        assert number not in self.now
        self.now[number] = super().__call__(path, number)
        view: Passing = self.now[number]
        return view

    def close(self, number: int, _: bool) -> None:  # noqa: FBT001
        assert self.now.pop(number).closed


@pytest.fixture
def few(tmp_path: Path) -> tuple[Shelf, Few]:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number:02}").write_bytes(b"image")
    opener = Few(20)
    return Shelf(folder, opener, opener.close), opener


def test_idle_images_make_room_for_others(few: tuple[Shelf, Few]) -> None:
    shelf, opener = few
    first = shelf.find("00")
    held = shelf.hold(first).result(HANG)
    for _ in range(2):
        for name, number in shelf.scan():
            shelf.hold(number).result(HANG)
            assert vars(shelf.view(number))["path"].name == name
            shelf.release(number)
    assert shelf.view(first) is held
    assert not opener.made[0].closed
    assert len(opener.made) >= 51
    assert phases(shelf) == {f"{number:02}": "complete" for number in range(50)}
    assert (shelf.status().image_size, shelf.space()) == (350, (350, 150))


def test_what_is_in_use_is_not_let_go_of(few: tuple[Shelf, Few]) -> None:
    shelf, opener = few
    numbers = [number for _, number in shelf.scan()]
    for number in numbers[:20]:
        shelf.hold(number).result(HANG)
    assert isinstance(wait(shelf.hold(numbers[20])), ImageError)
    for number in numbers[:20]:
        shelf.release(number)
    for made in opener.made:
        made.rests = False
    assert isinstance(wait(shelf.hold(numbers[21])), ImageError)
    opener.made[7].rests = True
    assert wait(shelf.hold(numbers[22])) is None
    assert [made.closed for made in opener.made].index(True) == 7


def test_the_longest_unused_goes_first(few: tuple[Shelf, Few]) -> None:
    shelf, opener = few
    numbers = [number for _, number in shelf.scan()]
    for number in (*numbers[:20], numbers[0]):
        shelf.hold(number).result(HANG)
        shelf.release(number)
    shelf.hold(numbers[20]).result(HANG)
    assert not opener.made[0].closed
    assert opener.made[1].closed


def let_go_of(few: tuple[Shelf, Few]) -> tuple[Shelf, Few, int]:
    """Give a shelf that has let go of its first image, and the number of that."""
    shelf, opener = few
    for _, number in shelf.scan():
        shelf.hold(number).result(HANG)
        shelf.release(number)
    assert opener.made[0].closed
    assert phases(shelf)["00"] == "complete"
    return shelf, opener, shelf.find("00")


@pytest.mark.parametrize("how", [change, Path.unlink, lambda path: path.write_bytes(b"")])
def test_what_changes_after_it_was_let_go_of(
    few: tuple[Shelf, Few], how: Callable[[Path], object], tmp_path: Path
) -> None:
    shelf, _, number = let_go_of(few)
    how(tmp_path / "many" / "00")
    shelf.look().result(HANG)
    assert phases(shelf)["00"] == "failed"
    assert isinstance(wait(shelf.hold(number)), ImageChangedError)
    assert phases(shelf)["01"] == "complete"


def test_another_bundle_does_not_take_its_place(few: tuple[Shelf, Few]) -> None:
    shelf, opener, number = let_go_of(few)
    opener.created_ns = 2
    assert isinstance(wait(shelf.hold(number)), InconsistentError)
    opener.created_ns = 1
    assert isinstance(wait(shelf.hold(shelf.find("00"))), InconsistentError)
    assert phases(shelf)["00"] == "failed"


def test_what_is_gone_is_let_go_of(shelf: Shelf, folder: Path, opener: Opener) -> None:
    number = shelf.find("a")
    shelf.hold(number).result(HANG)
    (folder / "a").unlink()
    opener.made[0].error = ImageChangedError("gone")
    shelf.look().result(HANG)
    assert not opener.made[0].closed, "somebody has it open"
    shelf.release(number)
    shelf.look().result(HANG)
    assert opener.made[0].closed
    (folder / "a").write_bytes(b"another")
    assert shelf.find("a") == number
    assert wait(shelf.hold(number)) is opener.made[0].error


def test_what_is_gone_is_let_go_of_without_anybody_looking(
    shelf: Shelf, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "SWEEP_SECONDS", 0.01)
    number = shelf.find("a")
    shelf.hold(number).result(HANG)
    shelf.release(number)
    opener.made[0].error = ImageChangedError("gone")
    deadline = time.monotonic() + HANG
    while not opener.made[0].closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opener.made[0].closed


def test_a_failed_bundle_stays_failed_whatever_becomes_of_its_file(
    shelf: Shelf, folder: Path, opener: Opener
) -> None:
    number = shelf.find("b")
    shelf.hold(number).result(HANG)
    opener.made[0].phase = "failed"
    change(folder / "b")
    assert shelf.find("b") == number
    (folder / "b").unlink()
    assert [name for name, _ in shelf.scan()] == ["a", "link"]
    (folder / "b").write_bytes(b"another")
    assert shelf.find("b") == number
    assert not opener.made[0].closed
    (folder / "b").rename(folder / "c")
    assert shelf.find("c") != number


def test_an_error_that_is_raised_often_does_not_grow(shelf: Shelf, opener: Opener) -> None:
    opener.error = ImageError("bad")
    number = shelf.find("a")
    wait(shelf.hold(number))
    for _ in range(100):
        with pytest.raises(ImageError):
            shelf.hold(number).result(HANG)
    assert len(traceback.extract_tb(opener.error.__traceback__)) < 10


def test_the_end_is_told_to_all_who_wait(shelf: Shelf, opener: Opener) -> None:
    shelf.hold(shelf.find("a")).result(HANG)
    opener.gate.clear()
    waiting = shelf.hold(shelf.find("b"))
    shelf.close()
    assert isinstance(wait(waiting), ClosedError)
    assert opener.made[0].closed
    with pytest.raises(ClosedError):
        shelf.hold(shelf.find("link"))
    opener.gate.set()
    deadline = time.monotonic() + HANG
    while (len(opener.made) < 2 or not opener.made[1].closed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opener.made[1].closed, "what was opened too late is closed again"


def test_an_error_that_comes_after_the_end_is_no_news(shelf: Shelf, opener: Opener) -> None:
    opener.gate.clear()
    opener.error = ImageError("bad")
    number = shelf.find("a")
    waiting = shelf.hold(number)
    shelf.close()
    opener.gate.set()
    assert isinstance(wait(waiting), ClosedError)
    shelf.close()
