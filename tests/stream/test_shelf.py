"""A folder of images, without FUSE: what is there, what is opened, what is begun anew."""

import os
import threading
import time
import traceback
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from bundlefs.errors import ClosedError, ImageError, StateError, UnknownNameError
from bundlefs.opened import OpenStatus
from bundlefs.shelf import Shelf, ShelfStatus
from bundlefs.views import View

HANG = 60


class Made:
    """As much of a view as a shelf sees of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.phase = "complete"
        self.closed = False

    def status(self) -> OpenStatus:
        return OpenStatus(self.phase, str(self.path), 7, 3, "", None)

    def space(self) -> tuple[int, int]:
        return 7, 3

    def close(self) -> None:
        self.closed = True


class Opener:
    """Opens by making; raises `error` instead, waits for `gate` before."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.made: list[Any] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: Path, number: int) -> View[Any]:
        self.calls.append((path.name, number))
        assert self.gate.wait(HANG)
        if self.error:
            raise self.error
        self.made.append(Made(path))
        view: View[Any] = self.made[-1]
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
    futures = [shelf.ask(number) for _ in range(10)]
    assert {id(future.result(HANG)) for future in futures} == {id(opener.made[0])}
    assert opener.calls == [("a", number)]
    assert shelf.view(number) is opener.made[0]
    assert shelf.find("a") == number
    assert phases(shelf) == {"a": "complete"}


def test_sums_and_space(shelf: Shelf) -> None:
    for name in ("a", "b"):
        shelf.ask(shelf.find(name)).result(HANG)
    status = shelf.status()
    assert isinstance(status, ShelfStatus)
    assert (status.image_size, status.sealed_bytes, status.phase) == (14, 6, "idle")
    assert shelf.space() == (14, 6)


def test_while_one_is_opened_others_are_too(shelf: Shelf, opener: Opener) -> None:
    opener.gate.clear()
    slow = shelf.ask(shelf.find("a"))
    other = shelf.ask(shelf.find("b"))
    assert set(phases(shelf).values()) == {"opening"}
    opener.gate.set()
    assert wait(slow) is wait(other) is None


def test_a_bad_image_is_tried_again_when_its_file_is_another(
    shelf: Shelf, folder: Path, opener: Opener
) -> None:
    opener.error = ImageError("bad")
    number = shelf.find("a")
    assert wait(shelf.ask(number)) is opener.error
    assert phases(shelf) == {"a": "failed"}
    assert shelf.find("a") == number
    assert wait(shelf.ask(number)) is opener.error
    assert len(opener.calls) == 1
    opener.error = None
    change(folder / "a")
    anew = shelf.find("a")
    assert anew != number
    assert wait(shelf.ask(anew)) is None
    assert phases(shelf) == {"a": "complete"}


@pytest.mark.parametrize("error", [StateError("locked"), OSError(24, "Too many open files")])
def test_what_is_no_image_s_fault_is_tried_again(
    shelf: Shelf, opener: Opener, error: Exception
) -> None:
    opener.error = error
    number = shelf.find("a")
    assert wait(shelf.ask(number)) is error
    opener.error = None
    anew = shelf.find("a")
    assert anew != number
    assert wait(shelf.ask(anew)) is None


def test_a_failed_bundle_stays_failed_whatever_becomes_of_its_file(
    shelf: Shelf, folder: Path, opener: Opener
) -> None:
    number = shelf.find("b")
    shelf.ask(number).result(HANG)
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
    wait(shelf.ask(number))
    for _ in range(100):
        with pytest.raises(ImageError):
            shelf.ask(number).result(HANG)
    assert len(traceback.extract_tb(opener.error.__traceback__)) < 10


def test_the_end_is_told_to_all_who_wait(shelf: Shelf, opener: Opener) -> None:
    shelf.ask(shelf.find("a")).result(HANG)
    opener.gate.clear()
    waiting = shelf.ask(shelf.find("b"))
    shelf.close()
    assert isinstance(wait(waiting), ClosedError)
    assert opener.made[0].closed
    with pytest.raises(ClosedError):
        shelf.ask(shelf.find("link"))
    opener.gate.set()
    deadline = time.monotonic() + HANG
    while (len(opener.made) < 2 or not opener.made[1].closed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opener.made[1].closed, "what was opened too late is closed again"


def test_an_error_that_comes_after_the_end_is_no_news(shelf: Shelf, opener: Opener) -> None:
    opener.gate.clear()
    opener.error = ImageError("bad")
    number = shelf.find("a")
    waiting = shelf.ask(number)
    shelf.close()
    opener.gate.set()
    assert isinstance(wait(waiting), ClosedError)
    shelf.close()
