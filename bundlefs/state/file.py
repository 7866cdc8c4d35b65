"""State files on the disk: how one is read and replaced.

A state file holds the AES key, so it has mode 0600. It is replaced in one step: there is always a
whole one, the old or the new.
"""

import os
from contextlib import suppress
from pathlib import Path

from bundlefs.base import files
from bundlefs.base.errors import StateError
from bundlefs.state.format import MAGIC, StateContents
from bundlefs.state.trust import UntrustedError, opened, read_trusted

_UNFINISHED = ".new"
_REMEDY = "--fresh starts a new bundle with a new key, and everything has to be uploaded anew"


def is_state_file(path: Path) -> bool:
    """Tell whether a file begins as a state file does."""
    with suppress(OSError), opened(path) as descriptor:
        return os.pread(descriptor, len(MAGIC), 0) == MAGIC
    return False


def read(path: Path) -> StateContents | None:
    """Read a state file, or return None if there is none.

    Raises:
        StateError: it cannot be read, or must not be trusted.
    """
    data = _read_private(path)
    if data is None:
        return None
    # A fresh bundle overwrites no file that may be something else: it might be the image.
    if data and not data.startswith(MAGIC):
        raise StateError(
            f"state file {path}: it is not a bundlefs state file, or its beginning is damaged. An"
            " upload of this bundle may be under way: if not, remove it; or name another with"
            " --state"
        )
    try:
        return StateContents.decode(data)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error) if type(error) is ValueError else "it is damaged"
        raise StateError(
            f"state file {path}: {reason}. An upload of this bundle may be under way: {_REMEDY}"
        ) from error


def _read_private(path: Path) -> bytes | None:
    """Read a state file that nobody else may have written or read, or return None if there is none.

    Raises:
        StateError: it cannot be read, or others have access to it.
    """
    try:
        return read_trusted(path)
    except UntrustedError as error:
        remedy = "; name another with --state"
        if error.exposed:
            remedy = f" and it holds the bundle's key; if nobody did, chmod 600 it. Else {_REMEDY}"
        raise StateError(f"state file {path}: {error}{remedy}") from error


def replace(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, durably and in one step.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with files.Draft(path, _UNFINISHED) as draft:
        files.write_all(draft.file, data, 0)
        draft.publish(replace=True)


def sweep(path: Path) -> None:
    """Remove what a process that was killed in `replace` has left: that holds the key as well.

    Only the holder of the lock may do this.
    """
    files.sweep(path, _UNFINISHED)
