"""Inode numbers: those of a mount are packed and unpacked here alone.

An inode is the number of a view and a number in that view. View 0 is the one of the mount's
root: a single image, or the folder that has one folder for each of many images, whose views are
numbered from 1. In a view come its own folder, its `.bundlefs`, the two files in there, and then
the entries by their keys. What the files in `.bundlefs` hold is another at each look, and so each
lookup of one gets a number of its own, from `FIRST_SNAPSHOT` on.
"""

from __future__ import annotations  # pyfuse3 before 3.4, which Debian 12 has, names no types

from typing import NamedTuple, Self

import pyfuse3

FOLDER, CONTROL, STATUS, METRICS, _FIRST_ENTRY = (pyfuse3.ROOT_INODE + step for step in range(5))
FIRST_SNAPSHOT = 1 << 39
_STRIDE = 1 << 40


class Inode(NamedTuple):
    """A number of the kernel's, as the two numbers that it is made of."""

    view: int
    local: int

    @classmethod
    def of(cls, number: int) -> Self:
        """Return the inode that the kernel knows by a number."""
        return cls(*divmod(number, _STRIDE))

    @property
    def number(self) -> pyfuse3.InodeT:
        """The number that the kernel knows it by."""
        return self.view * _STRIDE + self.local

    @property
    def key(self) -> int | None:
        """The key of the entry that it is, or None if it is no entry."""
        is_entry = _FIRST_ENTRY <= self.local < FIRST_SNAPSHOT
        return self.local - _FIRST_ENTRY if is_entry else None

    @property
    def is_root(self) -> bool:
        """Whether it is the folder that the mount itself is."""
        return self.view == 0 and self.local == FOLDER

    def sibling(self, local: int) -> Inode:
        """Return the inode of another number in the same view."""
        return Inode(self.view, local)

    def entry(self, key: int) -> Inode:
        """Return the inode of an entry in the same view."""
        return Inode(self.view, _FIRST_ENTRY + key)
