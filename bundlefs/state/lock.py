"""The lock of a state: a file beside it that keeps a second mount out and tells who holds it.

The kernel releases the lock when the process ends, however it ends. Somebody's own file may have
the name of a lock file: one that does not begin as ours is left as it is.
"""

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from bundlefs.base.errors import StateError
from bundlefs.state.kept import owner

_PATIENCE_SECONDS = 0.5
_FIRST_LINE = b"bundlefs-lock\n"
_MOST = 4096
_BEFORE = re.compile(rb"process [0-9]+, (mounted on|bundling to) ")
"""What versions that wrote no first line left behind when they were killed."""


class LockedError(StateError):
    """Another mount uses the state; `holder` tells which."""

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(
            f"state file {path} is in use by {holder}; unmount that first, or give this one"
            " another --prefix or --state"
        )


def lock_path(path: Path) -> Path:
    """Return the lock file of a state file, which locks all that are kept beside it as well."""
    path = owner(path)
    return path.with_name(f"{path.name}.lock")


def take_lock(path: Path) -> "Lock":
    """Lock a state file; a lock that nobody has signed yet is waited for, for a moment.

    Raises:
        LockedError: another mount has it, and the text says which.
        StateError: there can be no lock.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (file := _try(path, deadline)) is None:
        time.sleep(_PATIENCE_SECONDS / 20)
    lock = Lock(lock_path(path), file)
    # Clear the name that a killed mount left.
    lock.sign("")
    return lock


def _try(path: Path, deadline: float) -> int | None:
    """Return the locked file, or None if it is worth another try."""
    file = _opened(path)
    try:
        _require_lock_file(path, file)
        if _is_locked(path, file, deadline) and _is_named(file, lock_path(path)):
            return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(lock_path(path), flags, 0o600)
    except OSError as error:
        raise StateError(
            f"state file {path}: cannot lock it: {error.strerror}; name another with --state"
        ) from error


def _require_lock_file(path: Path, file: int) -> None:
    if _holder(file) is None:
        raise StateError(
            f"state file {path}: {lock_path(path)} would be its lock, but is a file of somebody"
            " else's and stays as it is: move it away, or name another with --state"
        )


def _is_locked(path: Path, file: int, deadline: float) -> bool:
    """Lock the file; return False if its holder may yet let go of it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(file)
        # A holder that has not signed is on its way in, or only looks (`lock_holder`).
        if holder or time.monotonic() > deadline:
            raise LockedError(path, holder or "a mount") from error
        return False
    except OSError as error:
        raise StateError(
            f"state file {path}: cannot lock {lock_path(path)}: {error.strerror}. Without a lock a"
            " second mount could spoil it: give --state a FILE on a file system with locks"
        ) from error
    return True


def _is_named(file: int, name: Path) -> bool:
    """Tell whether a lock file still has its name: a lock without it keeps nobody out."""
    # `forget` may have removed it before it was locked.
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), name.stat(follow_symlinks=False))
    return False


class Lock:
    """A lock that is held: it keeps a second mount off a state file, and tells it who is there."""

    def __init__(self, name: Path, file: int) -> None:
        self._name = name
        self._file = file

    def sign(self, holder: str) -> None:
        """Leave word of who holds it, if there is room on the disk: nothing depends on it."""
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _FIRST_LINE + holder.encode("utf-8", "surrogateescape"), 0)

    def remove(self) -> None:
        """Remove the file, when the state is gone."""
        with suppress(OSError):
            self._name.unlink()

    def close(self) -> None:
        """Release it. The file stays: a process that has it open would lock what nobody finds."""
        self.sign("")
        os.close(self._file)


def _holder(file: int) -> str | None:
    """Return who signed a lock file, perhaps nobody, or None if it is no lock file of ours."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return None
    data = os.pread(file, _MOST, 0)
    if data.startswith(_FIRST_LINE) or _FIRST_LINE.startswith(data) or _BEFORE.match(data):
        return data.removeprefix(_FIRST_LINE).decode("utf-8", "surrogateescape")
    return None


def lock_holder(path: Path) -> str | None:
    """Return who holds the lock of a state file, or None if nobody does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := _seen(lock_path(path))) == "" and time.monotonic() < deadline:
        time.sleep(_PATIENCE_SECONDS / 20)
    return "a mount" if found == "" else found


def _seen(name: Path) -> str | None:
    """Return who holds a lock, empty if the holder has not signed; look quickly, change nothing."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None
