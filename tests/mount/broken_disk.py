"""A disk that cannot be read from some offset on: a file system of one file, `disk`.

    python broken_disk.py MOUNTPOINT SIZE GOOD

The first GOOD bytes of SIZE read as 'x', a read beyond them fails with EIO, which is what
a worn-out disk answers. A script, since pyfuse3 has one session for each process.
"""

from __future__ import annotations  # pyfuse3 before 3.4, which Debian 12 has, names no types

import contextlib
import errno
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import trio

from tests.mount.commands import eventually
from tests.support.mounts import detach, is_mounted

NAME = b"disk"
FILE = pyfuse3.ROOT_INODE + 1


class BrokenDisk(pyfuse3.Operations):
    """`size` bytes, of which the first `good` can be read."""

    def __init__(self, size: int, good: int) -> None:
        super().__init__()
        self._size = size
        self._good = good

    async def getattr(
        self,
        inode: pyfuse3.InodeT,
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  # pyfuse3 fixes the signature
    ) -> pyfuse3.EntryAttributes:
        """Give the attributes of the folder or the file."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode
        is_file = inode == FILE
        mode = stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o555
        attributes.st_mode = mode
        attributes.st_size = self._size if is_file else 0
        return attributes

    async def lookup(
        self,
        parent_inode: pyfuse3.InodeT,  # noqa: ARG002  # pyfuse3 fixes the signature
        name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Find the file."""
        if name != NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(FILE, ctx)

    async def open(
        self,
        inode: pyfuse3.InodeT,
        flags: pyfuse3.FlagT,  # noqa: ARG002  # pyfuse3 fixes the signature
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  # same
    ) -> pyfuse3.FileInfo:
        """Open the file, past the page cache: no read-ahead runs into the bad part early."""
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(
        self,
        fh: pyfuse3.FileHandleT,  # noqa: ARG002  # pyfuse3 fixes the signature
        off: int,
        size: int,
    ) -> bytes:
        """Read, or fail as a disk does."""
        if off + size > self._good:
            raise pyfuse3.FUSEError(errno.EIO)
        return b"x" * size


@contextlib.contextmanager
def broken_disk(mountpoint: Path, size: int, good: int) -> Iterator[Path]:
    """Run this script until the `with` ends; gives the path of the disk."""
    mountpoint.mkdir()
    command = [sys.executable, "-m", "tests.mount.broken_disk", str(mountpoint)]
    process = subprocess.Popen([*command, str(size), str(good)])
    try:
        assert eventually(lambda: is_mounted(mountpoint))
        yield mountpoint / "disk"
    finally:
        detach(mountpoint)
        process.terminate()
        process.wait()


def main() -> None:
    """Serve until unmounted."""
    mountpoint, size, good = sys.argv[1:]
    pyfuse3.init(BrokenDisk(int(size), int(good)), mountpoint, {*pyfuse3.default_options, "ro"})
    trio.run(pyfuse3.main)
    pyfuse3.close()


if __name__ == "__main__":
    main()
