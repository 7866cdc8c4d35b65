"""Files that are made, read and written: the one place that knows how it is done safely.

A file that nobody needs afterwards has no name (`open_unnamed`): the kernel gives its space back
when the process ends, however it ends. A file that is to stay is a `Draft` until it is whole, and
there is one standard for all of them: it is written under no name or a private one, synced, given
its name in one step, and its folder is synced. So whoever reads finds the old file or the new
one, also after a power failure, and never a half.
"""

import ctypes
import errno
import functools
import glob
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
_SYNC_FILE_RANGE_WRITE = 2  # [fs.h]
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def open_unnamed(folder: Path) -> int:
    """Open a new file that only this process can reach, of mode 0600; return its descriptor.

    Raises:
        OSError: the folder is missing, or takes no files.
    """
    file = _without_name(folder, os.O_EXCL)
    if file is not None:
        return file
    # On a file system without O_TMPFILE it has a name for an instant.
    import tempfile  # noqa: PLC0415  # loads much, and few file systems need it

    handle, name = tempfile.mkstemp(prefix=".bundlefs-", dir=folder)
    Path(name).unlink()
    return handle


def _without_name(folder: Path, more: int = 0) -> int | None:
    """Open a file without a name, or return None if the file system cannot have one."""
    try:
        return os.open(folder, os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE | more, 0o600)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return None


class Draft:
    """A file that gets its name when it is whole. A context manager.

    What is private has mode 0600 and no name before. Where the file system cannot have that, and
    for what is not private, the name is `.NAME.`, eight hex digits and the suffix until then. A
    kill can leave that behind, for `sweep` to find.

    Args:
        path: what it is going to be called.
        suffix: the end of its name until then.
        private: only its owner may open it; else it has the mode that the umask gives it.

    Attributes:
        file: its descriptor.

    Raises:
        OSError: the folder is missing, or takes no files.
    """

    def __init__(self, path: Path, suffix: str = "", *, private: bool = True) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")
        # A file without a name gets one by way of /proc.
        unnamed = private and Path("/proc/self/fd").is_dir()
        file = _without_name(path.parent) if unnamed else None
        self._named = file is None
        if file is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            # The kernel applies the umask: to ask for it is to change it for other threads.
            file = os.open(self._temporary, flags, 0o600 if private else 0o666)
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and leave nothing behind if it was not published; again does nothing."""
        file, self.file = self.file, -1
        try:
            if file >= 0:
                os.close(file)
        finally:
            self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._named:
            self._named = False
            with suppress(OSError):
                self._temporary.unlink()

    def publish(self, *, replace: bool) -> None:
        """Give it its name, durably.

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
        """Link it under a name that is not taken [open(2), O_TMPFILE]."""
        source = self._temporary if self._named else Path(f"/proc/self/fd/{self.file}")
        # With a folder's descriptor alone Python follows the link.
        os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)


def sweep(path: Path, suffix: str = "") -> None:
    """Remove what a process that was killed has left of drafts of a file.

    Only a caller who knows that nobody else is writing that file may do this. What cannot be
    removed stays: it is in nobody's way.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{suffix}"):
        with suppress(OSError):
            left.unlink()


def read_fully(descriptor: int, offset: int, length: int) -> bytes:
    """Return `length` bytes at `offset`; fewer only where the file ends."""
    data = os.pread(descriptor, length, offset)
    while 0 < len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, or raise OSError; a write that does nothing is ENOSPC."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range of a file to the disk; nothing is known of the outcome.

    Whoever needs to know syncs the file: that tells of errors on the way [sync_file_range(2)].
    """
    with suppress(AttributeError, OSError):  # other C libraries, other kernels
        call = _libc().sync_file_range
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        call(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def umask() -> int:
    """Return the umask of this process.

    Linux tells of it; elsewhere it can only be learnt by setting another for a moment.
    """
    with suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
