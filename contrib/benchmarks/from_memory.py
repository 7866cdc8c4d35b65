"""The ceiling of a FUSE mount in Python: a folder's files served by pyfuse3 from memory.

python from_memory.py FOLDER MOUNTPOINT
"""

from __future__ import annotations  # pyfuse3 before 3.4, which Debian 12 has, names no types

import contextlib
import errno
import os
import signal
import stat
import sys
from pathlib import Path
from typing import cast

import pyfuse3
import trio

READ_AHEAD_KIB = 1024


class FromMemory(pyfuse3.Operations):
    """As few lines as serve a flat folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._names = sorted(os.fsencode(path.name) for path in folder.iterdir())
        self._data = [memoryview((folder / os.fsdecode(name)).read_bytes()) for name in self._names]

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Return attributes that never change."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode
        attributes.attr_timeout = attributes.entry_timeout = 1e6
        if inode == pyfuse3.ROOT_INODE:
            attributes.st_mode = stat.S_IFDIR | 0o555
        else:
            attributes.st_mode = stat.S_IFREG | 0o444
            attributes.st_size = len(self._data[inode - 2])
        return attributes

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Find by name."""
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(self._names.index(name) + 2, ctx)

    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        """Nothing to prepare."""
        return inode

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """List all names."""
        for number in range(start_id, len(self._names)):
            attributes = await self.getattr(number + 2, cast("pyfuse3.RequestContext", None))
            name = self._names[number]
            if not pyfuse3.readdir_reply(token, name, attributes, number + 1):
                return

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Nothing to prepare."""
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Return a slice, without a copy."""
        return cast("bytes", self._data[fh - 2][off : off + size])


async def _serve(mountpoint: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        nursery.start_soon(_tune, mountpoint)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            pyfuse3.terminate()
            return


async def _tune(mountpoint: str) -> None:
    """Do what bundlefs does; like it, go on where the kernel's file is not there or not ours."""
    device = (await trio.to_thread.run_sync(os.stat, mountpoint)).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    with contextlib.suppress(OSError):
        await trio.Path(bdi).write_text(str(READ_AHEAD_KIB))


if __name__ == "__main__":
    pyfuse3.init(FromMemory(Path(sys.argv[1])), sys.argv[2], set(pyfuse3.default_options))
    try:
        trio.run(_serve, sys.argv[2])
    finally:
        pyfuse3.close(unmount=True)
