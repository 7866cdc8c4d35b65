"""Storage that hangs when it is told to: a file system whose files all have one content.

    python -m tests.mount.hanging_disk MOUNTPOINT CONTENT GATE [direct]

Each name is a file with the bytes of CONTENT. While the file GATE is there, reads that end
behind the first offset that is written in it are not answered, unless they begin at the second one
or behind it. With `direct` the page cache keeps
nothing, so that what was read hangs the next time; and the kernel lets nobody give up a read
then, not even by SIGKILL, as with a disk that has gone. Without it a read can be killed. A
script, since pyfuse3 has one session for each process.
"""

from __future__ import annotations  # pyfuse3 before 3.4, which Debian 12 has, names no types

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from tests.mount.commands import eventually
from tests.support.mounts import detach, is_mounted

POLL_SECONDS = 0.02


class HangingDisk(pyfuse3.Operations):
    """Files by any name, inodes in the order in which they were looked up."""

    def __init__(self, content: int, gate: Path, *, direct: bool) -> None:
        super().__init__()
        self._content = content
        self._gate = gate
        self._direct = direct
        self._names: list[bytes] = []

    async def getattr(
        self,
        inode: pyfuse3.InodeT,
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  # pyfuse3 fixes the signature
    ) -> pyfuse3.EntryAttributes:
        """Give the attributes of the folder or a file."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode
        is_file = inode != pyfuse3.ROOT_INODE
        mode = stat.S_IFREG | 0o444 if is_file else stat.S_IFDIR | 0o555
        attributes.st_mode = mode
        attributes.st_size = os.fstat(self._content).st_size if is_file else 0
        return attributes

    async def lookup(
        self,
        parent_inode: pyfuse3.InodeT,  # noqa: ARG002  # pyfuse3 fixes the signature
        name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Find a file: any."""
        if name not in self._names:
            self._names.append(name)
        number = pyfuse3.ROOT_INODE + 1 + self._names.index(name)
        return await self.getattr(number, ctx)

    async def open(
        self,
        inode: pyfuse3.InodeT,
        flags: pyfuse3.FlagT,  # noqa: ARG002  # pyfuse3 fixes the signature
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  # same
    ) -> pyfuse3.FileInfo:
        """Open a file."""
        return pyfuse3.FileInfo(fh=inode, direct_io=self._direct)

    async def read(
        self,
        fh: pyfuse3.FileHandleT,  # noqa: ARG002  # pyfuse3 fixes the signature
        off: int,
        size: int,
    ) -> bytes:
        """Read, once the gate lets it."""
        while self._held(off, off + size):  # noqa: ASYNC110  # another process opens the gate
            await trio.sleep(POLL_SECONDS)
        return os.pread(self._content, size, off)

    def _held(self, start: int, end: int) -> bool:
        try:
            first, until = map(int, self._gate.read_text().split())
        except FileNotFoundError:
            return False
        return end > first and start < until


@dataclass(frozen=True, slots=True)
class Storage:
    """The folder of the files, and what makes them hang."""

    folder: Path
    gate: Path

    def hang(self, offset: int = 0, until: int = 1 << 62) -> None:
        """Answer no more reads that end behind `offset` and begin before `until`."""
        new = self.gate.with_suffix(".new")
        new.write_text(f"{offset} {until}")
        new.replace(self.gate)

    @contextlib.contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Have reads of the middle wait: whoever opens an image looks at its end."""
        self.hang(size // 2, size - 128 * 1024)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Answer all."""
        self.gate.unlink(missing_ok=True)


@contextlib.contextmanager
def hanging_disk(mountpoint: Path, content: Path, *words: str) -> Iterator[Storage]:
    """Run this script until the `with` ends."""
    mountpoint.mkdir()
    storage = Storage(mountpoint, mountpoint.with_suffix(".gate"))
    paths = map(str, (mountpoint, content, storage.gate))
    command = [sys.executable, "-m", "tests.mount.hanging_disk", *paths, *words]
    process = subprocess.Popen(command)
    try:
        assert eventually(lambda: is_mounted(mountpoint))
        yield storage
    finally:
        storage.release()
        detach(mountpoint)
        process.terminate()
        process.wait()


def main() -> None:
    """Serve until unmounted."""
    mountpoint, content, gate, *words = sys.argv[1:]
    disk = HangingDisk(os.open(content, os.O_RDONLY), Path(gate), direct="direct" in words)
    pyfuse3.init(disk, mountpoint, {*pyfuse3.default_options, "ro"})
    trio.run(pyfuse3.main, 1, 1000)
    pyfuse3.close()


if __name__ == "__main__":
    main()
