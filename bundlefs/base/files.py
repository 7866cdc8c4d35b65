"""Files without a name: space on a disk that cannot be left behind.

The kernel gives it back when the process ends, however it ends. What is to stay gets a name
once it is whole (`Draft`), so that no half of a secret or of an image can be found under one.
"""

import errno
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def open_unnamed(folder: Path) -> int:
    """Open a new file that only this process can reach, mode 0600; gives its descriptor.

    Raises:
        OSError: the folder is missing, or takes no files.
    """
    file = _without_name(folder, os.O_EXCL)
    if file is not None:
        return file
    # File systems without O_TMPFILE: a name for an instant.
    handle, name = tempfile.mkstemp(prefix=".bundlefs-", dir=folder)
    Path(name).unlink()
    return handle


def _without_name(folder: Path, more: int = 0) -> int | None:
    """Open a file without a name, or return None where the file system cannot have one."""
    try:
        return os.open(folder, os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE | more, 0o600)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return None


class Draft:
    """A file of mode 0600 that gets its name when it is whole. A context manager.

    Where the file system has none without a name, it is `.NAME.XXXXXXXX` and the suffix until
    then, with eight hex digits; a kill can leave that behind.

    Attributes:
        file: its descriptor.

    Raises:
        OSError: the folder is missing, or takes no files.
    """

    def __init__(self, path: Path, suffix: str = "") -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")
        # The name is given by way of /proc.
        file = _without_name(path.parent) if Path("/proc/self/fd").is_dir() else None
        self._named = file is None
        if file is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(self._temporary, flags, 0o600)
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)
        if self._named:
            with suppress(OSError):
                self._temporary.unlink()

    def publish(self, *, replace: bool) -> None:
        """Have it under its name, durably.

        Raises:
            FileExistsError: the name is taken, and `replace` is not given.
            OSError: it cannot be written.
        """
        os.fsync(self.file)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if replace:
                self._replace(folder)
            else:
                self._link(self._path, folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _replace(self, folder: int) -> None:
        if not self._named:
            self._link(self._temporary, folder)
            self._named = True
        self._temporary.rename(self._path)
        self._named = False

    def _link(self, path: Path, folder: int) -> None:
        """Give it a name that is not taken [open(2), O_TMPFILE]."""
        source = self._temporary if self._named else Path(f"/proc/self/fd/{self.file}")
        # With a folder's descriptor alone Python follows the link.
        os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, or raise OSError; a write that does nothing is ENOSPC."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written
