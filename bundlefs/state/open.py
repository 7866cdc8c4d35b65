"""How a state in a file is taken up, begun or forgotten.

A file that cannot be trusted is refused: an upload may be under way, and a new key for the same
bucket must be the user's own decision (`fresh`). Which bundle goes on is decided in `choice`; the
steps here are in such an order that a kill between any two of them loses no bundle.
"""

from contextlib import suppress
from pathlib import Path

from bundlefs.base.errors import StateError
from bundlefs.state import choice
from bundlefs.state import file as statefile
from bundlefs.state import kept as statekept
from bundlefs.state.choice import Wanted
from bundlefs.state.format import StateContents
from bundlefs.state.kept import Kept
from bundlefs.state.lock import Lock, take_lock
from bundlefs.state.places import default_folder
from bundlefs.state.saved import StateFile
from bundlefs.state.trust import make_folder


def open_file(path: Path, wanted: Wanted, *, fresh: bool) -> StateFile:
    """Take up the state in a file or one that is kept beside it, or begin a new one there.

    Raises:
        StateError: the file is in use, cannot be trusted or cannot be written.
    """
    make_folder(path.parent, ours=path.parent == default_folder())
    lock = take_lock(path)
    try:
        statefile.sweep(path)
        current = _readable(path) if fresh else statefile.read(path)
        state = _opened(path, lock, current, wanted, fresh=fresh)
    except OSError as error:
        lock.close()
        raise StateError(
            f"cannot write the state file {path}: {error.strerror}; name another place with"
            " --state, or give --state none and start anew after each unmount"
        ) from error
    except BaseException:
        lock.close()
        raise
    return state


def _readable(path: Path) -> StateContents | None:
    """Return what a fresh bundle takes the place of, as far as it can be read.

    Raises:
        StateError: the file is not for us to overwrite.
    """
    if path.is_file() and path.stat().st_size and not statefile.is_state_file(path):
        raise StateError(
            f"state file {path}: it is not a bundlefs state file, or its beginning is damaged, and"
            " --fresh does not overwrite it: remove it, or name another with --state"
        )
    with suppress(StateError):
        return statefile.read(path)
    return None


def _opened(
    path: Path, lock: Lock, current: StateContents | None, wanted: Wanted, *, fresh: bool
) -> StateFile:
    if current and not fresh and not choice.reasons(current, wanted):
        contents, gone = choice.continued(current, wanted), list[Kept]()
    else:
        contents, gone = _switched(path, current, wanted, fresh=fresh)
    state = StateFile(path, lock, contents)
    # Before anyone sees a byte: what is uploaded must be there to be continued.
    state.write()
    statekept.drop(gone)
    return state


def _switched(
    path: Path, current: StateContents | None, wanted: Wanted, *, fresh: bool
) -> tuple[StateContents, list[Kept]]:
    """Put the current bundle aside for another; return that, and the kept ones that are to go."""
    kept = statekept.read(path, current, drop_damaged=fresh)
    contents, taken = choice.switched(current, kept, wanted, fresh=fresh)
    known = [one.contents for one in kept] + ([current] if current else [])
    # Where only the key is to be another, nobody can ever ask for the old bundle again.
    if current and choice.reasons(current, wanted):
        kept.append(statekept.put_aside(path, current))
    rest = [one for one in kept if one not in taken]
    dropped = statekept.too_many(rest, lambda old: choice.has_lost_image(old, wanted))
    read = [one.contents for one in dropped]
    return choice.remembering(contents, known, read, fresh=fresh), taken + dropped


def forget(path: Path) -> None:
    """Remove a state file and all that are kept beside it, one of those, or access points.

    Raises:
        StateError: a mount uses it, or it cannot be removed.
    """
    lock = take_lock(path)
    try:
        statekept.remember(path)
        path.unlink()
        statefile.sweep(path)
        for other in statekept.beside(path):
            other.unlink()
        if not statekept.owner(path).exists():
            lock.remove()
    except OSError as error:
        raise StateError(f"state file {path}: {error.strerror}") from error
    finally:
        lock.close()
