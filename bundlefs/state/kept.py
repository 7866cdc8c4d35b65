"""The bundles that were asked for before, kept beside the state file of the one asked for last.

Each lies in `FILE.kept-N` beside the state file FILE; N is when it was begun, in ns since 1970.
The lock of FILE is theirs as well: only who holds it may change anything here.
"""

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs.base.errors import StateError
from bundlefs.state import file as statefile
from bundlefs.state.file import Contents

MOST = 8
"""How many bundles of one state file are kept, the current one among them."""

_MARK = ".kept-"
# The user's own files have other names: the number has 19 digits until the year 2286.
_NAME = re.compile(rf"(.+){re.escape(_MARK)}[0-9]{{18,20}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file, and the bundle in it."""

    path: Path
    contents: Contents


def owner(path: Path) -> Path:
    """Return the state file beside which a file is kept; another file is its own."""
    match = _NAME.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def beside(path: Path) -> list[Path]:
    """Return the files that are kept beside a state file, by age."""
    with suppress(OSError):
        return sorted(one for one in path.parent.iterdir() if one != path and owner(one) == path)
    return []


def place(path: Path, contents: Contents) -> Path:
    """Return where a bundle is kept beside a state file."""
    return path.with_name(f"{path.name}{_MARK}{contents.created_ns}")


def read(path: Path, current: Contents | None, *, drop_damaged: bool) -> list[Kept]:
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
            if not drop_damaged or not statefile.is_one(one):
                raise
            _remove(one)
            continue
        found += [Kept(one, contents)] if contents else []
    return found


def remember(path: Path) -> None:
    """Before a bundle that is kept is removed, have the current one tell of it; raises OSError.

    Who goes back to one before it would not learn otherwise that it had been read.
    """
    with suppress(StateError):
        current = statefile.read(owner(path)) if owner(path) != path else None
        if current:
            told = replace(current, gone_ns=max(current.taken - 1, current.gone_ns))
            statefile.replace(owner(path), told.encode())


def put_aside(path: Path, current: Contents) -> None:
    """Keep what is in the state file beside it; raises OSError."""
    path.rename(place(path, current))


def too_many(kept: Collection[Kept], lost: Callable[[Contents], bool]) -> list[Kept]:
    """Return what goes, to leave room for the current one.

    The first to go are those of which the image is `lost`, then those not used for the longest.
    """
    by_worth = sorted(kept, key=lambda one: (not lost(one.contents), one.contents.taken))
    return by_worth[: max(0, len(by_worth) - (MOST - 1))]


def drop(gone: Collection[Kept]) -> None:
    """Remove what is kept no longer. What cannot be removed is found the next time."""
    for one in gone:
        _remove(one.path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
