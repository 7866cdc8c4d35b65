"""A file whose storage does not answer is waited for by nobody but who looks into it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundlefs.base.threads import PATIENCE_SECONDS
from bundlefs.fuse import looks
from bundlefs.fuse.looks import Found, Looks
from bundlefs.fuse.shelf import Shelf
from tests.stream.engine import HANG


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looks at what is named `slow` hang until it is set."""
    gate = threading.Event()
    real = looks._found  # noqa: SLF001

    def found(path: Path) -> Found | None:
        if path.name == "slow":
            gate.wait(HANG)
        return real(path)

    monkeypatch.setattr(looks, "_found", found)
    yield gate
    gate.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("good", "slow"):
        (tmp_path / name).write_bytes(b"image")
    return tmp_path


def opener(path: Path, number: int) -> None:
    raise AssertionError(f"nobody opens {path}, {number}")


def test_a_folder_is_listed_though_a_file_in_it_hangs(folder: Path, gate: threading.Event) -> None:
    shelf = Shelf(folder, opener)  # type: ignore[arg-type]  # it opens nothing
    before = shelf.scanning().result(HANG)
    assert [name for name, _ in before] == ["good", "slow"]
    begun = time.monotonic()
    for _ in range(20):
        assert shelf.find("good") == before[0][1]
        assert shelf.find("slow") == before[1][1]
    # The first look has waited for all that come later.
    assert time.monotonic() - begun < 10 * PATIENCE_SECONDS
    gate.set()
    assert shelf.scanning().result(HANG) == before
    shelf.close()


def test_one_thread_looks_at_a_file_however_often_it_is_asked_for(
    folder: Path, gate: threading.Event
) -> None:
    watch = Looks()
    before = threading.active_count()
    for _ in range(50):
        assert watch.identity(folder / "slow") == ()
    assert threading.active_count() == before + 1
    gate.set()
    found = watch.look(folder / "slow")
    assert found is not None
    assert found.place == folder / "slow"


def test_a_link_is_told_without_asking_where_it_leads(folder: Path, gate: threading.Event) -> None:
    (folder / "aside").mkdir()
    (folder / "aside/slow").symlink_to("../slow")
    found = Looks().look(folder / "aside/slow")
    assert found == Found((), folder / "slow", folder / "slow")
    assert not gate.is_set()


def test_who_waits_for_a_look_hears_of_the_end(folder: Path, gate: threading.Event) -> None:
    shelf = Shelf(folder, opener)  # type: ignore[arg-type]  # it opens nothing
    asked = shelf.finding("slow")
    shelf.close()
    assert asked.exception(HANG) is not None or asked.result() > 0
    assert not gate.is_set()
