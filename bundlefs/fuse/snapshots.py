"""The files that are made when somebody looks them up: what they hold, as of that moment.

Tools differ in what they rely on. Some ask for the size first and read no further (sendfile
in `busybox cat`), some read until nothing comes, some go through the page cache and some
around it, and many do so at a time. So each lookup gets an inode of its own, whose
content and size agree and stay: all that see the inode see the same.

Concurrency: all of this runs in the event loop's thread.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bundlefs.fuse import metrics
from bundlefs.fuse.inodes import FIRST_SNAPSHOT, Inode

RENEWED_SECONDS = 5.0
"""An inode that is opened later than this was not just looked up: it is bind-mounted, say."""


def document(status: Mapping[str, Any], about: Mapping[str, Any] | None) -> bytes:
    """Return a status as JSON, with facts of the mount, or as metrics if there are none."""
    if about is None:
        return metrics.text(status).encode()
    return json.dumps({**status, **about}, indent=1).encode() + b"\n"


@dataclass(slots=True)
class Snapshot:
    """An inode's content; `file` is what it is a snapshot of."""

    file: Inode
    content: bytes
    made: float


@dataclass(frozen=True, slots=True)
class Opened:
    """What one opening reads to its end; `shared` if all others of the inode read the same."""

    content: bytes
    shared: bool


class Snapshots:
    """All that the kernel knows, by inode. `make` returns the content of a file as of now."""

    def __init__(self, make: Callable[[Inode], bytes]) -> None:
        self._make = make
        self._by_inode: dict[Inode, Snapshot] = {}
        self._made = 0

    def add(self, file: Inode) -> Inode:
        """Make a snapshot and return its inode, in the view of the file."""
        self._made += 1
        inode = file.sibling(FIRST_SNAPSHOT + self._made)
        self._by_inode[inode] = Snapshot(file, self._make(file), time.monotonic())
        return inode

    def find(self, inode: Inode) -> Snapshot | None:
        """Return what an inode is, or None if it is not a snapshot."""
        return self._by_inode.get(inode)

    def open(self, inode: Inode) -> Opened:
        """Return what somebody reads who opens an inode now."""
        snapshot = self._by_inode[inode]
        if time.monotonic() - snapshot.made <= RENEWED_SECONDS:
            return Opened(snapshot.content, shared=True)
        # The kernel relies on the size that it was told, and blanks do no harm in these files.
        now = self._make(snapshot.file)
        snapshot.content = now + b"\n" * (len(snapshot.content) - len(now))
        return Opened(snapshot.content, shared=False)

    def forget(self, inode: Inode) -> None:
        """Drop a snapshot: the kernel does not know it any more."""
        self._by_inode.pop(inode, None)
