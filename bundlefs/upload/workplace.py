"""A folder for one upload: links, a socket, a mountpoint. What killed ones have left goes too."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "bundlefs-upload-"
_OLD_SECONDS = 60


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield an empty folder that nobody else may look into, and that is gone afterwards."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    held = _hold(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Lock a folder for as long as this process is there; None if another one has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            # One that was made a moment ago is about to be locked.
            old = about.st_uid == os.geteuid() and time.time() - about.st_mtime > _OLD_SECONDS
            if old and (held := _hold(folder)) is not None:
                _remove(folder)
                os.close(held)


def _remove(folder: Path) -> None:
    """Remove a folder, but nothing that is mounted in it."""
    mounted = any(os.path.ismount(path) for path in folder.iterdir())
    if not mounted:
        shutil.rmtree(folder, ignore_errors=True)
