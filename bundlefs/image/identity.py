"""What shows that a file is still the one that was opened: its size, its times and its inode.

A time shows an edit only if it is newer than the edit before it, and file systems' clocks tick
slowly: `settle` waits, once on opening, until that is so.
"""

import os
import stat
import time
from dataclasses import dataclass
from typing import Self

_SECOND = 1_000_000_000
# The kernel stamps files with a clock that ticks every 1 to 10 ms; double that to be safe.
_TICK = 20_000_000
# Some file systems keep whole seconds only (ext4 with small inodes), or even ones (FAT).
_COARSE_TICK = 2 * _SECOND


@dataclass(frozen=True, slots=True)
class Identity:
    """What must stay as it is for a file to count as unchanged.

    Attributes:
        size: bytes.
        mtime_ns: of the file, or for a block device of its node, in ns since 1970.
        ctime_ns: same.
        inode: of the file, or of the device node.
        device: number of the file system's device.
        is_block_device: of such a one only the size is compared, since a write to it leaves no
            trace in its node's times.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    is_block_device: bool

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Return the identity of an open file."""
        status = os.fstat(descriptor)
        block = stat.S_ISBLK(status.st_mode)
        size = os.lseek(descriptor, 0, os.SEEK_END) if block else status.st_size
        return cls(
            size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev, block
        )

    def changes(self, now: "Identity") -> list[str]:
        """Return in words what is different `now`; an empty list if nothing is.

        The device number is left out: it may differ after a reboot, with the same file on it.
        """
        found = []
        if now.is_block_device != self.is_block_device:
            found.append("it was a file and is a block device, or the reverse")
        if now.size != self.size:
            found.append(f"size was {self.size} bytes, is {now.size}")
        if self.is_block_device:
            return found
        if now.mtime_ns != self.mtime_ns:
            found.append(f"mtime moved by {(now.mtime_ns - self.mtime_ns) / _SECOND:+.9f} s")
        if now.ctime_ns != self.ctime_ns:
            found.append(f"ctime moved by {(now.ctime_ns - self.ctime_ns) / _SECOND:+.9f} s")
        if now.inode != self.inode:
            found.append(f"inode was {self.inode}, is {now.inode}")
        return found


def settle(identity: Identity) -> None:
    """Wait until an edit of the file must show in its times. This is seldom needed, and short."""
    time.sleep(settling_ns(identity, time.time_ns()) / _SECOND)


def settling_ns(identity: Identity, now_ns: int) -> int:
    """Return how long to wait until an edit of the file must show in its times, in ns.

    A file's times come from a clock that ticks. If the last edit was in this very tick, one more
    edit in it could leave the same times and the same size, and would never be seen: git calls
    such a file "racily clean". After the tick, every edit has a newer time.
    """
    newest = max(identity.mtime_ns, identity.ctime_ns)
    tick = _TICK if newest % _SECOND else _COARSE_TICK
    age = now_ns - newest
    return tick - age if 0 <= age < tick and not identity.is_block_device else 0
