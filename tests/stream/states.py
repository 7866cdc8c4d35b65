"""State files as the tests of this folder want them: made of terms that mean nothing."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from bundlefs.base.spans import Span
from bundlefs.codec.cbc import CbcState
from bundlefs.keys.rsa import Secret
from bundlefs.state import file as statefile
from bundlefs.state import open as module
from bundlefs.state.choice import Wanted
from bundlefs.state.format import StateContents
from bundlefs.state.saved import StateFile

WANTED = Wanted(
    image=Path("/data/disk"),
    terms={"image's size": "4096", "level": "6", "prefix": "image"},
    recipients={"image.manifest.xml": "aa"},
    extents=(Span(0, 4096),),
)


def open_file(path: Path, asked: Wanted = WANTED, *, fresh: bool = False) -> StateFile:
    return module.open_file(path, asked, fresh=fresh)


@contextmanager
def opened(path: Path, asked: Wanted = WANTED, *, fresh: bool = False) -> Iterator[StateFile]:
    with closing(open_file(path, asked, fresh=fresh)) as state:
        yield state


def grow(state: StateFile) -> None:
    state.index.append(1000, CbcState(bytes(16), bytes(1010 % 16)), 77)


def blocks_in(path: Path) -> int:
    return contents(path).index.blocks


def read(state: StateFile) -> None:
    """Do what the first reader of a byte does."""
    state.begin()
    grow(state)


def secret(path: Path, asked: Wanted, *, fresh: bool = False) -> Secret:
    """Open the bundle that is asked for, and tell its secret."""
    with opened(path, asked, fresh=fresh) as state:
        return state.secret


def like(**terms: str) -> Wanted:
    """Ask for another bundle of the same image."""
    return replace(WANTED, terms={**WANTED.terms, **terms})


def contents(path: Path) -> StateContents:
    """Read a state file that is there and whole."""
    found = statefile.read(path)
    assert found
    return found
