"""Files without a name: space on a disk that cannot be left behind.

The kernel gives it back when the process ends, however it ends.
"""

import errno
import os
import tempfile
from pathlib import Path

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def open_unnamed(folder: Path) -> int:
    """Open a new file that only this process can reach, mode 0600; gives its descriptor.

    Raises:
        OSError: the folder is missing, or takes no files.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE | os.O_EXCL
    try:
        return os.open(folder, flags, 0o600)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    # File systems without O_TMPFILE: a name for an instant.
    handle, name = tempfile.mkstemp(prefix=".bundlefs-", dir=folder)
    Path(name).unlink()
    return handle


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, or raise OSError; a write that does nothing is ENOSPC."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written
