"""The FUSE handlers: which of them wait, for what, and what each answers. No byte logic.

    /                         the files of a bundle, or the image in one: a single `View`
      .bundlefs/              never listed
        status.json           where the bundle stands; always answers at once
        metrics               the same for Prometheus

    /                         a folder for each of many images
      .bundlefs/              the same for all of them
      NAME/                   a `View`, with a .bundlefs of its own

The handlers know `Images` alone, whether that is one view or many; the kernel's numbers are read
and made in `inodes`, views are asked by way of `asking`, and how to wait is in `waiting`.

Waiting is harmless in `getattr`, `opendir`, `open`, `read` and `getxattr`, and nowhere
else: while a `lookup` or a `readdir` is unanswered, the kernel sends no other
lookup in that directory. So `lookup` of a part whose size is not known answers
with size 0 and timeouts of 0; the kernel then asks `getattr`, which waits. There is one
exception: the first lookup in an image's folder waits for that image to be opened.

Not everybody asks `getattr`: sendfile(2) takes a file to end where the kernel's size of it is,
and asks nobody. So `open` does not return before the kernel knows the true one.

Concurrency: all of this runs in the event loop's thread. A handler that waits for the
frontier waits for a future, not in a thread; what computes goes to a thread.
"""

from __future__ import annotations  # pyfuse3 before 3.4, which Debian 12 has, names no types

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3

from bundlefs.fuse.asking import (
    all_entries,
    bytes_of,
    has_failed,
    look_at,
    require_unchanged,
    size_of,
    with_digests,
)
from bundlefs.fuse.attributes import Attributes, space
from bundlefs.fuse.control import FILES, Control
from bundlefs.fuse.handlers import handler, listing_handler, silent_handler
from bundlefs.fuse.inodes import CONTROL, FOLDER, Inode
from bundlefs.fuse.mountpoint import CONTROL_NAME
from bundlefs.fuse.pagecache import PageCache
from bundlefs.fuse.views import Folders, Images, View, WithDigests
from bundlefs.fuse.waiting import in_thread, until

DIGEST_XATTR = b"user.bundlefs.sha1"


@dataclass(frozen=True, slots=True)
class _Listing:
    """Names and inodes, and the number of the view that is kept open for them."""

    names: Sequence[tuple[str, Inode]]
    kept: int | None = None


class Operations(pyfuse3.Operations):
    """The handlers.

    Attributes:
        pages: gives finished parts to the kernel, until it is told to stop.

    Args:
        images: what is shown.
        umask: of the process.
        about: facts of the mount, which are added to the status.
        folder: where the mount is, if the kernel is to keep finished parts in its page cache.
    """

    def __init__(
        self, images: Images, umask: int, about: dict[str, object], folder: Path | None
    ) -> None:
        super().__init__()
        self._images = images
        self._attributes = Attributes(umask, images.begun_ns)
        self._control = Control(images, self._attributes, about)
        self._opened_snapshots: dict[int, bytes] = {}
        self._untold: set[Inode] = set()
        self._listings: dict[int, _Listing] = {}
        self._readers: dict[int, tuple[Inode, int]] = {}
        self._handles = 0
        self._names: dict[int, str] = {}
        self.pages = PageCache(folder, self._untold.discard)
        if view := images.view(0):
            self.pages.watch(0, "", view)

    # Views and entries

    @contextlib.asynccontextmanager
    async def _opened(self, number: int, asker: int) -> AsyncIterator[View[Any]]:
        """Yield a view once it is open; it stays open until the end of the `with`."""
        opened = self._images.hold(number)
        try:
            await until(opened, asker)
            view = opened.result()
            self.pages.watch(number, self._names.get(number, ""), view)
            yield view
        finally:
            self._images.release(number)

    def _entry(self, inode: Inode) -> tuple[View[Any], Any]:
        """Return the entry of an inode and its view, which is open."""
        view, key = self._images.view(inode.view), inode.key
        if view is None or key is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return view, view.entry(key)

    @contextlib.asynccontextmanager
    async def _with_digest(
        self, number: int, asker: int
    ) -> AsyncIterator[tuple[WithDigests[Any], Any]]:
        inode = Inode.of(number)
        if inode.key is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        async with self._opened(inode.view, asker):
            view, entry = self._entry(inode)
            digests = with_digests(view, entry)
            if digests is None:
                raise pyfuse3.FUSEError(errno.ENODATA)
            yield digests, entry

    def _folders(self, inode: Inode) -> Folders | None:
        """Return what this folder lists if that is a folder for each image."""
        return self._images.folders if inode.is_root else None

    # Attributes

    @handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Answer at once: see the module's head."""
        parent, text = Inode.of(parent_inode), os.fsdecode(name)
        if parent.local == CONTROL and text in FILES:
            return await self._control.find(parent.sibling(FILES[text]))
        if parent.local != FOLDER:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if text == CONTROL_NAME:
            return self._attributes.folder(parent.sibling(CONTROL))
        if folders := self._folders(parent):
            found = folders.finding(text)
            await until(found, ctx.pid)
            self._names[found.result()] = text
            return self._attributes.folder(Inode(found.result(), FOLDER))
        async with self._opened(parent.view, ctx.pid) as view:
            entry = view.find(text)
            return self._told(parent.entry(view.key(entry)), view.known_size(entry))

    def _told(self, inode: Inode, size: int | None) -> pyfuse3.EntryAttributes:
        # It stays untold though another answer tells it: the kernel takes that up when the one who
        # asked runs on, which may be after somebody else has opened the file and gone by 0.
        if size is None:
            self._untold.add(inode)
        return self._attributes.entry(inode, size)

    @handler
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Wait until the size is known, and tell it."""
        asked = Inode.of(inode)
        if asked.local in (FOLDER, CONTROL):
            return self._attributes.folder(asked)
        if attributes := self._control.attributes(asked):
            return attributes
        async with self._opened(asked.view, ctx.pid):
            view, entry = self._entry(asked)
            if (size := view.known_size(entry)) is None:
                async with self.pages.pinned():
                    size = await size_of(view, entry, ctx.pid)
            return self._told(asked, size)

    # Directories

    @handler
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        """Wait until all names and sizes are known."""
        folder, listing = Inode.of(inode), _Listing([])
        if folders := self._folders(folder):
            scanned = folders.scanning()
            await until(scanned, ctx.pid)
            listing = _Listing([(name, Inode(view, FOLDER)) for name, view in scanned.result()])
            self._names |= {view: name for name, view in scanned.result()}
        elif folder.local == FOLDER:
            listing = await self._entries(folder, ctx.pid)
        handle = self._new_handle()
        self._listings[handle] = listing
        return handle

    async def _entries(self, folder: Inode, asker: int) -> _Listing:
        """Return what is in the folder of a view, which is then kept open."""
        async with self.pages.pinned(), self._opened(folder.view, asker) as view:
            look_at(view)
            entries = await all_entries(view, asker)
            names = [(view.name(entry), folder.entry(view.key(entry))) for entry in entries]
            self._images.hold(folder.view)
        return _Listing(names, folder.view)

    def _new_handle(self) -> pyfuse3.FileHandleT:
        self._handles += 1
        return self._handles

    @listing_handler
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Answer at once: see the module's head."""
        names = self._listings[fh].names
        for number in range(start_id, len(names)):
            name, inode = names[number]
            attributes = self._listed(inode)
            encoded = os.fsencode(name)
            if not pyfuse3.readdir_reply(token, encoded, attributes, number + 1):
                return

    def _listed(self, inode: Inode) -> pyfuse3.EntryAttributes:
        if inode.local == FOLDER:
            return self._attributes.folder(inode)
        view, entry = self._entry(inode)
        return self._attributes.entry(inode, view.known_size(entry))

    @handler
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Forget the listing."""
        listing = self._listings.pop(fh, None)
        if listing and listing.kept is not None:
            self._images.release(listing.kept)

    # Files

    @handler
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Wait until the size is known, which it is for what was listed, and tell it."""
        asked = Inode.of(inode)
        if opened := await self._control.open(asked):
            handle = self._reader(asked, ctx)
            self._opened_snapshots[handle] = opened.content
            # What one opening has for itself must not go through the cache that all share.
            return pyfuse3.FileInfo(fh=handle, direct_io=not opened.shared)
        opening = self.pages.opening(asked)
        try:
            await until(opening, ctx.pid)
            view = await self._prepared(asked, ctx.pid)
        except BaseException:
            self.pages.closed(asked)
            raise
        # What a bundle had before it failed is not served either.
        return pyfuse3.FileInfo(fh=self._reader(asked, ctx), keep_cache=not has_failed(view))

    async def _prepared(self, inode: Inode, asker: int) -> View[Any]:
        """Return the view of an entry that may be read now, and keep it open."""
        async with self.pages.pinned(), self._opened(inode.view, asker):
            view, _ = self._entry(inode)
            # The kernel gives what it remembers of a file without asking again.
            await require_unchanged(view, asker)
            if inode in self._untold:
                await self._tell_size(inode, asker)
            self._images.hold(inode.view)
        return view

    def _reader(self, inode: Inode, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Return a handle. pyfuse3 does not tell who reads; it is mostly the one who opened."""
        handle = self._new_handle()
        self._readers[handle] = inode, ctx.pid
        return handle

    async def _tell_size(self, inode: Inode, asker: int) -> None:
        """Have the kernel know the size of an entry for which it has 0.

        An answer to `open` holds no size, but a file grows by what is put into its page cache.
        """
        view, entry = self._entry(inode)
        if size := await size_of(view, entry, asker):
            last = await bytes_of(view, entry, size - 1, 1, asker)
            store = partial(pyfuse3.notify_store, inode.number, size - 1, last)
            await in_thread(store, asker)
        self._untold.discard(inode)

    @handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Return exactly what was asked for, short only at the end of the file."""
        inode, asker = self._readers[fh]
        if (content := self._opened_snapshots.get(fh)) is not None:
            return content[off : off + size]
        self.pages.asked(inode)
        view, entry = self._entry(inode)
        return await bytes_of(view, entry, off, size, asker)

    @handler
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Note that there is one reader less."""
        inode, _ = self._readers.pop(fh)
        if self._opened_snapshots.pop(fh, None) is None:
            self.pages.closed(inode)
            self._images.release(inode.view)

    # The rest

    @handler
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        """Return the SHA-1 of a part, once it is complete."""
        if name != DIGEST_XATTR:
            raise pyfuse3.FUSEError(errno.ENODATA)
        async with self._with_digest(inode, ctx.pid) as (digests, entry):
            await until(digests.when_digested(entry), ctx.pid)
            return digests.digest(entry).encode()

    @handler
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        """Return the names of the extended attributes."""
        with contextlib.suppress(pyfuse3.FUSEError):
            async with self._with_digest(inode, ctx.pid):
                return [DIGEST_XATTR]
        return []

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Show the image as the size and the bundle as what is used; nothing can be added."""
        return space(*self._images.space())

    @silent_handler
    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Forget snapshots; any other inode is a number that follows from the name."""
        for inode, _ in inode_list:
            self._control.forget(Inode.of(inode))
