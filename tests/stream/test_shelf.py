"""A folder of images, without FUSE: what is there, what is opened, what is begun anew."""

import errno
import os
from pathlib import Path

import pytest

from bundlefs.base.errors import ImageChangedError, ImageError, StateError, UnknownNameError
from bundlefs.fuse import shelved
from bundlefs.fuse.shelf import Shelf, ShelfStatus
from tests.stream.engine import HANG
from tests.stream.shelves import Opener, caused, change, phases, wait


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
