"""The bundles that were asked for before, kept beside the state file of the one asked for last.

So a mistyped option costs nothing: with the right ones the earlier bundle goes on. Each lies in
`FILE.kept-N` beside the state file FILE; N is when it was begun, in ns since 1970. The lock of
FILE is theirs as well: only its holder may change anything here.
"""

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs.base.errors import StateError
from bundlefs.state import file as statefile
from bundlefs.state.format import StateContents

MOST = 8
"""How many bundles of one state file are kept, the current one among them."""

_MARK = ".kept-"
# The user's own files have other names: the number has 19 digits until the year 2286.
_NAME = re.compile(rf"(.+){re.escape(_MARK)}[0-9]{{18,20}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file, and the bundle in it."""

    path: Path
    contents: StateContents


def owner(path: Path) -> Path:
    """Return the state file beside which a file is kept, or the file itself if it is not kept."""
    match = _NAME.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def beside(path: Path) -> list[Path]:
    """Return the files that are kept beside a state file, the oldest bundle first."""
    with suppress(OSError):
        return sorted(one for one in path.parent.iterdir() if one != path and owner(one) == path)
    return []


def place(path: Path, contents: StateContents) -> Path:
    """Return where a bundle is kept beside a state file."""
    return path.with_name(f"{path.name}{_MARK}{contents.created_ns}")


def read(path: Path, current: StateContents | None, *, drop_damaged: bool) -> list[Kept]:
    """Read all that is kept beside a state file, in which `current` was found.

    Raises:
        StateError: one cannot be read, and might be what is wanted; not with `drop_damaged`.
    """
    found = []
    for one in beside(path):
        # A kill between two steps may leave the current one here, as it was before.
        if current and one == place(path, current):
            _remove(one)
            continue
        try:
            contents = statefile.read(one)
        except StateError:
            if not drop_damaged or not statefile.is_state_file(one):
                raise
            _remove(one)
            continue
        found += [Kept(one, contents)] if contents else []
    return found


def remember(path: Path) -> None:
    """Note in the current bundle that a kept one, which is about to be removed, was read.

    Otherwise nobody would learn of it on going back to an earlier one.

    Raises:
        OSError: it cannot be noted.
    """
    with suppress(StateError):
        current = statefile.read(owner(path)) if owner(path) != path else None
        if current:
            told = replace(current, gone_ns=max(current.taken - 1, current.gone_ns))
            statefile.replace(owner(path), told.encode())


def put_aside(path: Path, current: StateContents) -> Kept:
    """Keep what is in the state file beside it.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = place(path, current)
    path.rename(aside)
    return Kept(aside, current)


def too_many(kept: Collection[Kept], lost: Callable[[StateContents], bool]) -> list[Kept]:
    """Return the bundles that must go to leave room for the current one.

    The first to go are those whose image is `lost`, then those that were not used for the longest.
    """
    by_worth = sorted(kept, key=lambda one: (not lost(one.contents), one.contents.taken))
    return by_worth[: max(0, len(by_worth) - (MOST - 1))]


def drop(gone: Collection[Kept]) -> None:
    """Remove bundles. What cannot be removed is found the next time."""
    for one in gone:
        _remove(one.path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
