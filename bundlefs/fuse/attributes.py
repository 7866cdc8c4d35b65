"""What the kernel is told of a file or a folder, and for how long it may remember that."""

import os
import stat
from collections.abc import Callable

import pyfuse3

from bundlefs.fuse.inodes import FOLDER, Inode

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may remember what never changes."""
_SOON = 1.0
"""Seconds after which it asks whether the image of a name is still the same."""


class Attributes:
    """Makes attributes: `begun_ns` returns the time that all files of a view show."""

    def __init__(self, umask: int, begun_ns: Callable[[int], int]) -> None:
        self._umask = umask
        self._begun_ns = begun_ns

    def entry(self, inode: Inode, size: int | None) -> pyfuse3.EntryAttributes:
        """Return those of an entry, for good; with no size, those of a name for an instant."""
        return self.file(inode, size or 0, 0.0 if size is None else FOREVER)

    def file(self, inode: Inode, size: int, seconds: float) -> pyfuse3.EntryAttributes:
        """Return those of a file, which the kernel may remember for `seconds`."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode.number
        attributes.st_mode = stat.S_IFREG | (0o444 & ~self._umask)
        attributes.st_nlink = 1
        attributes.st_size = size
        attributes.st_blocks = -(-attributes.st_size // 512)
        attributes.st_blksize = 1 << 20
        attributes.attr_timeout = attributes.entry_timeout = seconds
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        begun = self._begun_ns(inode.view)
        attributes.st_mtime_ns = attributes.st_ctime_ns = attributes.st_atime_ns = begun
        return attributes

    def folder(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """Return those of a folder."""
        attributes = self.file(inode, 0, FOREVER)
        if inode.local == FOLDER and not inode.is_root:
            # The name may lead to another image by then.
            attributes.entry_timeout = _SOON
        attributes.st_mode = stat.S_IFDIR | (0o555 & ~self._umask)
        attributes.st_nlink = 2
        return attributes


def space(image: int, bundle: int) -> pyfuse3.StatvfsData:
    """Return a full disk of the size of the image, of which the bundle is used."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = 512
    data.f_blocks = -(-max(image, bundle) // 512)
    data.f_bfree = data.f_blocks + -bundle // 512
    data.f_bavail = 0
    data.f_files = data.f_ffree = data.f_favail = 0
    data.f_namemax = 255
    return data
