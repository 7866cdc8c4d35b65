"""The files that are made when somebody looks them up: what they hold, as of that moment.

Tools differ in what they go by. Some ask for the size first and read no further (sendfile
in `busybox cat`), some read until nothing comes, some go through the page cache and some
around it, and many do so at a time. So each lookup gets an inode of its own, whose
content and size are one and stay: all that see the inode see the same.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bundlefs.fuse import metrics

RENEWED_SECONDS = 1.0
"""An inode that is opened later than this was not just looked up: it is mounted, say."""


def document(status: Mapping[str, Any], about: Mapping[str, Any] | None) -> bytes:
    """Return a status as JSON, with facts of the mount, or as metrics if there are none."""
    if about is None:
        return metrics.text(status).encode()
    return json.dumps({**status, **about}, indent=1).encode() + b"\n"


@dataclass(slots=True)
class Snapshot:
    """An inode's content; `file` is the number of what it is a snapshot of."""

    file: int
    content: bytes
    made: float
    openings: int = 0


class Snapshots:
    """All that the kernel knows, by inode. `make` gives the content of a file now."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        self._make = make
        self._by_inode: dict[int, Snapshot] = {}
        self._made = 0

    def add(self, file: int, first: int) -> int:
        """Make a snapshot and return its inode, one of those from `first` on."""
        self._made += 1
        self._by_inode[first + self._made] = Snapshot(file, self._make(file), time.monotonic())
        return first + self._made

    def find(self, inode: int) -> Snapshot | None:
        """Return what an inode is, or None if it is not a snapshot."""
        return self._by_inode.get(inode)

    def open(self, inode: int) -> None:
        """Note that somebody reads it, and renew one that is of long ago."""
        snapshot = self._by_inode[inode]
        if not snapshot.openings and time.monotonic() - snapshot.made > RENEWED_SECONDS:
            # The kernel goes by the size that it was told: blanks are harmless in all of these.
            now = self._make(snapshot.file)
            snapshot.content = now + b"\n" * (len(snapshot.content) - len(now))
            snapshot.made = time.monotonic()
        snapshot.openings += 1

    def release(self, inode: int) -> None:
        """Note that one reader less has it open."""
        if snapshot := self._by_inode.get(inode):
            snapshot.openings -= 1

    def forget(self, inode: int) -> None:
        """Drop it: the kernel does not know it any more."""
        self._by_inode.pop(inode, None)
