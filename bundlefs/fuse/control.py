"""The files in `.bundlefs`: looked up, opened and read, each as of the moment it was looked up.

Concurrency: all of this runs in the event loop's thread.
"""

from concurrent.futures import Future
from dataclasses import asdict

import pyfuse3
import trio

from bundlefs.fuse.attributes import Attributes
from bundlefs.fuse.inodes import METRICS, STATUS, Inode
from bundlefs.fuse.mountpoint import METRICS_NAME, STATUS_NAME
from bundlefs.fuse.snapshots import Opened, Snapshots, document
from bundlefs.fuse.views import Images
from bundlefs.fuse.waiting import until

FILES = {STATUS_NAME: STATUS, METRICS_NAME: METRICS}
"""Files that are made when they are looked up, by name."""

_LOOK_SECONDS = 0.5
_NOBODY = 0


class Control:
    """The files in `.bundlefs`. `about` is added to the status: facts of the mount."""

    def __init__(self, images: Images, attributes: Attributes, about: dict[str, object]) -> None:
        self._images = images
        self._attributes = attributes
        self._about = about
        self._snapshots = Snapshots(self._content)
        self._hanging: dict[int, Future[None]] = {}

    async def find(self, file: Inode) -> pyfuse3.EntryAttributes:
        """Make a snapshot of a file, and return its attributes."""
        await self._look(file.view)
        inode = self._snapshots.add(file)
        snapshot = self._snapshots.find(inode)
        return self._attributes.file(inode, len(snapshot.content) if snapshot else 0, 0.0)

    def attributes(self, inode: Inode) -> pyfuse3.EntryAttributes | None:
        """Return the attributes of a snapshot, or None if the inode is none."""
        if snapshot := self._snapshots.find(inode):
            # Under one number for all: cp takes another for a file that was replaced meanwhile.
            return self._attributes.file(snapshot.file, len(snapshot.content), 0.0)
        return None

    async def open(self, inode: Inode) -> Opened | None:
        """Return what is read of a snapshot, or None if the inode is none."""
        if not self._snapshots.find(inode):
            return None
        await self._look(inode.view)
        return self._snapshots.open(inode)

    def forget(self, inode: Inode) -> None:
        """Drop a snapshot; any other inode is a number that follows from the name."""
        self._snapshots.forget(inode)

    async def _look(self, number: int) -> None:
        """Let the status tell of a change of the image; it is told at once, whatever hangs."""
        looking = self._images.look_at(number)
        if looking is None or looking is self._hanging.get(number):
            return
        with trio.move_on_after(_LOOK_SECONDS):
            await until(looking, _NOBODY)
        self._hanging[number] = looking

    def _content(self, file: Inode) -> bytes:
        status = asdict(self._images.status_of(file.view))
        return document(status, None if file.local == METRICS else self._about)
