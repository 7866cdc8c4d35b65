"""Private files and folders: whether one may be trusted with a key, or believed.

A state holds the bundle's AES key. What others may have read is no secret any more, and what
others may have written may be anything: neither is used.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundlefs.base.errors import StateError

log = logging.getLogger(__name__)


class UntrustedError(Exception):
    """A file cannot be read, or others have access to it.

    Attributes:
        exposed: whether others may read it.
    """

    def __init__(self, reason: str, *, exposed: bool = False) -> None:
        super().__init__(reason)
        self.exposed = exposed


@contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    """Hold a file open to read for the length of a `with`, whatever kind of file it is."""
    # A FIFO must not make us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_trusted(path: Path) -> bytes | None:
    """Read a file that nobody else may have written or read, or return None if there is none.

    Raises:
        UntrustedError: it cannot be read, or others have access to it.
    """
    try:
        with opened(path, os.O_NOFOLLOW) as descriptor:
            _require_private(os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise UntrustedError(str(reason)) from error


def _require_private(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise UntrustedError(
            f"it belongs to user {status.st_uid}, not to you ({os.geteuid()}); chown it if you"
            " trust it"
        )
    if status.st_mode & 0o077:
        mode = status.st_mode & 0o777
        raise UntrustedError(f"others may open it (mode {mode:04o})", exposed=True)


def make_folder(folder: Path, *, ours: bool = False) -> None:
    """Make a private folder, unless it is there; `ours` tells that it is for states alone.

    Raises:
        StateError: it cannot be made, or others may change what is in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_no_other_writers(folder, folder.stat(), ours=ours)
    except OSError as error:
        raise StateError(
            f"cannot make the folder {folder} for the state: {error.strerror};"
            " name another place with --state"
        ) from error


def _require_no_other_writers(folder: Path, status: os.stat_result, *, ours: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    # Many users have a group of their own, which may write wherever they may.
    own_group = status.st_gid == os.getegid() and not ours
    others = 0o002 if own_group else 0o022
    # In a sticky folder nobody removes or renames what is somebody else's.
    if mode & others and not mode & stat.S_ISVTX:
        raise StateError(
            f"state folder {folder}: others may write to it (mode {mode:04o}), and so remove a"
            " bundle's key or put another in its place: chmod go-w it, or name another place with"
            " --state"
        )
    if ours and mode & 0o055:
        log.warning(
            "state folder %s: others may look into it (mode %04o); chmod 700 it", folder, mode
        )
