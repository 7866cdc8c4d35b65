"""When the files of a bundle look new: if another bundle of its image was read meanwhile."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundlefs.base.errors import StateError
from bundlefs.state import file as statefile
from bundlefs.state import kept as statekept
from bundlefs.state.open import forget
from tests.stream.states import WANTED, contents, like, opened, read, secret

HOUR = 3600 * 10**9


def test_the_files_look_new_if_another_was_read(path: Path) -> None:
    with opened(path) as first:
        read(first)
        assert first.shown_ns == first.created_ns
    with opened(path, like(level="9")) as second:
        read(second)
    before = time.time_ns()
    with opened(path) as back:
        shown = back.shown_ns
        assert shown >= max(before, second.shown_ns + 1)
    for _ in range(2):
        with opened(path) as again:
            assert again.shown_ns == shown, "until another one is read again"


def test_the_files_look_as_before_if_nobody_read_another(path: Path) -> None:
    with opened(path) as first:
        read(first)
    for _ in range(3):
        secret(path, like(level="9"))
        with opened(path) as back:
            assert back.shown_ns == first.created_ns


def test_the_one_that_nobody_had_read_looks_new_afterwards(path: Path) -> None:
    """What was sent of the first in the meantime is newer than the second's beginning."""
    secret(path, WANTED)
    other = like(level="9")
    with opened(path, other) as second:
        begun = second.created_ns
    with opened(path) as first:
        read(first)
    now = time.time_ns()
    with opened(path, other) as back:
        assert back.created_ns == begun
        assert back.shown_ns >= now


def test_a_kill_after_the_first_byte_counts(path: Path) -> None:
    with opened(path) as first:
        read(first)
    with opened(path, like(level="9")) as second:
        second.begin()
        copy = path.read_bytes()
        second.index.load(second.index.dump())
    path.write_bytes(copy)  # what a kill would have left
    assert contents(path).index.blocks == 0
    with opened(path) as back:
        assert back.shown_ns > second.shown_ns


def replaced_by_fresh(path: Path) -> None:
    secret(path, like(level="9"), fresh=True)


def forgotten(path: Path) -> None:
    secret(path, like(level="1"))
    forget(statekept.beside(path)[-1])


def removed_by_hand(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("lose", [replaced_by_fresh, forgotten, removed_by_hand])
def test_another_that_was_read_and_is_gone(path: Path, lose: Callable[[Path], None]) -> None:
    with opened(path) as first:
        read(first)
    with opened(path, like(level="9")) as second:
        read(second)
    lose(path)
    with opened(path) as back:
        assert back.secret == first.secret
        assert back.shown_ns > second.shown_ns
        shown = back.shown_ns
    secret(path, like(level="5"))
    with opened(path) as again:
        assert again.shown_ns == shown, "that is known now"


def test_another_that_was_read_and_is_pushed_out(path: Path) -> None:
    """Those of another image go first, however new they are."""
    with opened(path) as first:
        read(first)
    with opened(path, like(**{"image's size": "1"})) as lost:
        read(lost)
    for level in range(statekept.MOST - 1):
        secret(path, like(level=f"x{level}"))
    assert lost.secret not in {contents(one).secret for one in statekept.beside(path)}
    with opened(path) as back:
        assert back.secret == first.secret
        assert back.shown_ns > lost.shown_ns


@pytest.mark.parametrize("fresh", [True, False])
def test_a_new_one_is_newer_than_all(path: Path, *, fresh: bool) -> None:
    with opened(path) as first:
        read(first)
    secret(path, like(level="9"))
    [kept] = statekept.beside(path)
    ahead = time.time_ns() + HOUR
    statefile.replace(kept, replace(contents(kept), shown_ns=ahead).encode())
    with opened(path, like(level="1"), fresh=fresh) as third:
        assert third.created_ns > ahead


def test_it_cannot_be_noted_that_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then going back could mix two bundles in a bucket."""
    with opened(path) as alone, monkeypatch.context() as full:
        full.setattr(statefile, "replace", no_room)
        alone.begin()
    with opened(path, like(level="9")) as second, monkeypatch.context() as full:
        full.setattr(statefile, "replace", no_room)
        with pytest.raises(StateError, match=r"cannot note in .*: No space left on device"):
            second.begin()


def no_room(path: Path, data: bytes) -> None:  # noqa: ARG001
    raise OSError(28, "No space left on device")
