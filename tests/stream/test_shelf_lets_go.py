"""What a folder of images lets go of: what is unused, what is gone, and all of it at the end."""

import errno
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundlefs.base.errors import ClosedError, ImageChangedError, ImageError, InconsistentError
from bundlefs.fuse import openings
from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.shelved import Passing
from tests.stream.engine import HANG
from tests.stream.shelves import Opener, caused, change, phases, wait


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
