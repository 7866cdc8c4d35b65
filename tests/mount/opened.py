"""Bundles opened as disks, as a user opens them: `bundlefs open`, in the background."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.mounts import bundlefs, clear, detach, read_status, require_fuse

BY_STATE = "by the index of its state"
BY_INDEX = "by the index beside it"
BY_POINTS = "by access points"


@dataclass(frozen=True, slots=True)
class Opened:
    """A live mount: the folder, the image in it, the log, and the daemon's process id."""

    path: Path
    disk: Path
    log: Path
    pid: int

    def status(self) -> dict[str, Any]:
        """Give what `.bundlefs/status.json` says now."""
        return read_status(self.path)

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of the image, asking the daemon and not the kernel's cache for them.

        Raises:
            OSError: what the daemon answered.
        """
        with self.disk.open("rb", buffering=0) as disk:
            os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            # no read-ahead: what is asked for is what is read
            os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            data = piece = os.pread(disk.fileno(), length, offset)
            # a read that meets with an error further on is short; the next one gets it
            while piece and len(data) < length:
                piece = os.pread(disk.fileno(), length - len(data), offset + len(data))
                data += piece
            return data


@contextlib.contextmanager
def opened(
    manifest: Path, mountpoint: Path, *options: str | Path, env: dict[str, str] | None = None
) -> Iterator[Opened]:
    """Open a bundle for the length of a `with`; the log is beside the mountpoint."""
    require_fuse()
    mountpoint.mkdir(exist_ok=True)
    log = mountpoint.with_suffix(".log")
    try:
        bundlefs("open", manifest, mountpoint, "--log-file", log, *options, env=env)
        [disk] = mountpoint.glob("*.img")
        mount = Opened(mountpoint, disk, log, int(read_status(mountpoint)["pid"]))
    except BaseException:
        detach(mountpoint)
        raise
    try:
        yield mount
    finally:
        clear(mountpoint, mount.pid)
