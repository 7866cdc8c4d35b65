"""The FUSE handlers: inodes, handles, and what waits. No byte logic.

    /                         a `View`: the files of a bundle, or the image in one
      .bundlefs/              never listed
        status.json           where the bundle stands; always answers at once
        metrics               the same for Prometheus

    /                         a `Shelf`: a folder for each of many images
      .bundlefs/              the same for all of them
      NAME/                   a `View`, with a .bundlefs of its own

An inode is the number of its view, in steps of `_STRIDE`, and the view's own key; that of
a file in .bundlefs is another at each lookup, since what it holds is.

Waiting is harmless in `getattr`, `opendir`, `open`, `read` and `getxattr`, and nowhere
else: while a `lookup` or a `readdir` is unanswered, the kernel sends no other
lookup in that directory. So `lookup` of a part whose size is not known answers
with size 0 and timeouts of 0; the kernel then asks `getattr`, which waits. Alone the
first lookup in an image's folder waits for that image to be opened.

Not all ask `getattr`: sendfile(2) takes a file to end where the kernel's size of it is,
and asks nobody. So `open` does not return before the kernel knows the true one.

Concurrency: all of this runs in the event loop's thread. Who waits for the
frontier waits for a future, not in a thread; what computes goes to a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyfuse3
import trio

from bundlefs.fuse.asking import (
    all_entries,
    bytes_of,
    look_at,
    require_unchanged,
    size_of,
    with_digests,
)
from bundlefs.fuse.handlers import handler, listing_handler, silent_handler
from bundlefs.fuse.mountpoint import CONTROL_NAME, METRICS_NAME, STATUS_NAME
from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.snapshots import Snapshots, document
from bundlefs.fuse.views import View, WithDigests
from bundlefs.fuse.waiting import in_thread, until

_ROOT = pyfuse3.ROOT_INODE
_CONTROL, _STATUS, _METRICS, _FIRST = (_ROOT + number for number in (1, 2, 3, 4))
_MADE_NAMES = {STATUS_NAME: _STATUS, METRICS_NAME: _METRICS}
"""Files that are made when they are looked up, by name."""
_STRIDE = 1 << 40
_FIRST_SNAPSHOT = 1 << 39

DIGEST_XATTR = b"user.bundlefs.sha1"

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may remember what never changes."""
_SOON = 1.0
"""Seconds after which it asks whether the image of a name is still the same."""

_LOOK_SECONDS = 0.5
_NOBODY = 0


@dataclass(frozen=True, slots=True)
class _Listing:
    """Names and inodes, and the inode of the bundle that is kept open for them."""

    names: Sequence[tuple[str, int]]
    kept: int | None = None


class Operations(pyfuse3.Operations):
    """The handlers. `about` is added to the status: facts of the mount."""

    def __init__(self, shown: View[Any] | Shelf, umask: int, about: dict[str, object]) -> None:
        super().__init__()
        self._shown = shown
        self._umask = umask
        self._about = about
        self._snapshots = Snapshots(self._content)
        self._untold: set[int] = set()
        self._hanging: dict[int, Future[None]] = {}
        self._listings: dict[int, _Listing] = {}
        self._readers: dict[int, tuple[int, int]] = {}
        self._handles = 0

    # Inodes

    def _view(self, number: int) -> View[Any] | None:
        """Give the view of a number if it is open."""
        return self._shown.view(number) if isinstance(self._shown, Shelf) else self._shown

    @contextlib.asynccontextmanager
    async def _opened(self, inode: int, asker: int) -> AsyncIterator[View[Any]]:
        """Give the view of an inode once it is open; it stays so until the end of the `with`."""
        if not isinstance(self._shown, Shelf):
            yield self._shown
            return
        number = inode // _STRIDE
        future = self._shown.hold(number)
        try:
            await until(future, asker)
            yield future.result()
        finally:
            self._shown.release(number)

    def _keep_open(self, inode: int) -> None:
        """Have the view of an inode stay open for a handle; only where it is open."""
        if isinstance(self._shown, Shelf):
            self._shown.hold(inode // _STRIDE)

    def _let_go(self, inode: int) -> None:
        if isinstance(self._shown, Shelf):
            self._shown.release(inode // _STRIDE)

    def _entry(self, inode: int) -> tuple[View[Any], Any]:
        """Give what is open."""
        number, local = divmod(inode, _STRIDE)
        view = self._view(number)
        if view is None or local < _FIRST:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return view, view.entry(local - _FIRST)

    @contextlib.asynccontextmanager
    async def _with_digest(
        self, inode: int, asker: int
    ) -> AsyncIterator[tuple[WithDigests[Any], Any]]:
        if inode % _STRIDE < _FIRST:
            raise pyfuse3.FUSEError(errno.ENODATA)
        async with self._opened(inode, asker):
            view, entry = self._entry(inode)
            digests = with_digests(view, entry)
            if digests is None:
                raise pyfuse3.FUSEError(errno.ENODATA)
            yield digests, entry

    # Attributes

    def _attributes(self, inode: int, size: int | None) -> pyfuse3.EntryAttributes:
        """Give the attributes of an entry, for good; with no size, of a name for an instant."""
        return self._file(inode, size or 0, 0.0 if size is None else FOREVER)

    def _file(self, inode: int, size: int, seconds: float) -> pyfuse3.EntryAttributes:
        """Give the attributes of a file, which the kernel may remember for `seconds`."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(inode)
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFREG | (0o444 & ~self._umask))
        attributes.st_nlink = 1
        attributes.st_size = size
        attributes.st_blocks = -(-attributes.st_size // 512)
        attributes.st_blksize = 1 << 20
        attributes.attr_timeout = attributes.entry_timeout = seconds
        return self._owned(attributes)

    def _directory(self, inode: int) -> pyfuse3.EntryAttributes:
        attributes = self._file(inode, 0, FOREVER)
        if inode % _STRIDE == _ROOT != inode:
            attributes.entry_timeout = _SOON
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | (0o555 & ~self._umask))
        attributes.st_nlink = 2
        return attributes

    def _owned(self, attributes: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        number, shown = attributes.st_ino // _STRIDE, self._shown
        created = shown.begun_ns(number) if isinstance(shown, Shelf) else shown.created_ns
        attributes.st_mtime_ns = attributes.st_ctime_ns = attributes.st_atime_ns = created
        return attributes

    @handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Never wait here: see the module's head."""
        number, local = divmod(parent_inode, _STRIDE)
        text = os.fsdecode(name)
        if local == _CONTROL and text in _MADE_NAMES:
            await self._look(number)
            return self._snapshot(number * _STRIDE, _MADE_NAMES[text])
        if local != _ROOT:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if text == CONTROL_NAME:
            return self._directory(number * _STRIDE + _CONTROL)
        if shelf := self._shelf(parent_inode):
            found = shelf.finding(text)
            await until(found, ctx.pid)
            return self._directory(found.result() * _STRIDE + _ROOT)
        async with self._opened(parent_inode, ctx.pid) as view:
            entry = view.find(text)
            return self._told(number * _STRIDE + _FIRST + view.key(entry), view.known_size(entry))

    def _told(self, inode: int, size: int | None) -> pyfuse3.EntryAttributes:
        (self._untold.add if size is None else self._untold.discard)(inode)
        return self._attributes(inode, size)

    def _shelf(self, inode: int) -> Shelf | None:
        """Give the shelf if this is its own folder."""
        return self._shown if isinstance(self._shown, Shelf) and inode == _ROOT else None

    @handler
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Wait until the size is known, and tell it."""
        local = inode % _STRIDE
        if local in (_ROOT, _CONTROL):
            return self._directory(inode)
        if snapshot := self._snapshots.find(inode):
            # Under one number for all: cp takes another for a file that was replaced meanwhile.
            return self._file(snapshot.file, len(snapshot.content), 0.0)
        async with self._opened(inode, ctx.pid):
            view, entry = self._entry(inode)
            return self._told(inode, await size_of(view, entry, ctx.pid))

    # Directories

    @handler
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        """Wait until all names and sizes are known."""
        listing = _Listing([])
        if shelf := self._shelf(inode):
            scanned = shelf.scanning()
            await until(scanned, ctx.pid)
            listing = _Listing(
                [(name, number * _STRIDE + _ROOT) for name, number in scanned.result()]
            )
        elif inode % _STRIDE == _ROOT:
            listing = await self._bundle(inode, ctx.pid)
        handle = self._new_handle()
        self._listings[handle] = listing
        return handle

    async def _bundle(self, inode: int, asker: int) -> "_Listing":
        async with self._opened(inode, asker) as view:
            look_at(view)
            first = inode - _ROOT + _FIRST
            entries = await all_entries(view, asker)
            names = [(view.name(entry), first + view.key(entry)) for entry in entries]
            self._keep_open(inode)
        return _Listing(names, inode)

    def _new_handle(self) -> pyfuse3.FileHandleT:
        self._handles += 1
        return pyfuse3.FileHandleT(self._handles)

    @listing_handler
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Never wait here: see the module's head."""
        names = self._listings[fh].names
        for number in range(start_id, len(names)):
            name, inode = names[number]
            attributes = self._listed(inode)
            encoded = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, encoded, attributes, number + 1):
                return

    def _listed(self, inode: int) -> pyfuse3.EntryAttributes:
        if inode % _STRIDE == _ROOT:
            return self._directory(inode)
        view, entry = self._entry(inode)
        return self._attributes(inode, view.known_size(entry))

    @handler
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Forget the listing."""
        listing = self._listings.pop(fh, None)
        if listing and listing.kept is not None:
            self._let_go(listing.kept)

    # Files

    @handler
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Wait until the size is known, which it is for what was listed, and tell it."""
        if self._snapshots.find(inode):
            await self._look(inode // _STRIDE)
            self._snapshots.open(inode)
            return pyfuse3.FileInfo(fh=self._reader(inode, ctx))
        async with self._opened(inode, ctx.pid):
            view, _ = self._entry(inode)
            # The kernel gives what it remembers of a file without asking again.
            await require_unchanged(view, ctx.pid)
            if inode in self._untold:
                await self._tell_size(inode, ctx.pid)
            self._keep_open(inode)
        return pyfuse3.FileInfo(fh=self._reader(inode, ctx), keep_cache=True)

    def _reader(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Give a handle. Who reads, pyfuse3 does not tell; it is mostly the one who opened."""
        handle = self._new_handle()
        self._readers[handle] = inode, ctx.pid
        return handle

    async def _look(self, number: int) -> None:
        """Let the status tell of a change of the image; it is told at once, whatever hangs."""
        looking = self._looking(number)
        if looking is None or looking is self._hanging.get(number):
            return
        with trio.move_on_after(_LOOK_SECONDS):
            await until(looking, _NOBODY)
        self._hanging[number] = looking

    def _looking(self, number: int) -> Future[None] | None:
        if isinstance(self._shown, Shelf) and not number:
            return self._shown.look()
        view = self._view(number)
        return look_at(view) if view else None

    async def _tell_size(self, inode: pyfuse3.InodeT, asker: int) -> None:
        """Have the kernel know the size of an entry for which it has 0.

        An answer to `open` holds no size, but a file grows by what is put into its page cache.
        """
        view, entry = self._entry(inode)
        if size := await size_of(view, entry, asker):
            last = await self._bytes(inode, asker, size - 1, 1)
            store = partial(pyfuse3.notify_store, inode, size - 1, last)
            await in_thread(store, asker)
        self._untold.discard(inode)

    def _snapshot(self, first: int, local: int) -> pyfuse3.EntryAttributes:
        inode = self._snapshots.add(first + local, first + _FIRST_SNAPSHOT)
        snapshot = self._snapshots.find(inode)
        return self._file(inode, len(snapshot.content) if snapshot else 0, 0.0)

    def _content(self, file: int) -> bytes:
        number, local = divmod(file, _STRIDE)
        shelf = self._shown if isinstance(self._shown, Shelf) and number else None
        status = asdict(shelf.slot_status(number) if shelf else self._shown.status())
        return document(status, None if local == _METRICS else self._about)

    @handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Give exactly what was asked for, short only at the end of the file."""
        inode, asker = self._readers[fh]
        if snapshot := self._snapshots.find(inode):
            return snapshot.content[off : off + size]
        return await self._bytes(inode, asker, off, size)

    async def _bytes(self, inode: int, asker: int, off: int, size: int) -> bytes:
        view, entry = self._entry(inode)
        return await bytes_of(view, entry, off, size, asker)

    @handler
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """One reader less."""
        inode, _ = self._readers.pop(fh)
        if self._snapshots.find(inode):
            self._snapshots.release(inode)
        else:
            self._let_go(inode)

    # The rest

    @handler
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        """Give the SHA-1 of a part, once it is complete."""
        if name != DIGEST_XATTR:
            raise pyfuse3.FUSEError(errno.ENODATA)
        async with self._with_digest(inode, ctx.pid) as (digests, entry):
            await until(digests.when_digested(entry), ctx.pid)
            return digests.digest(entry).encode()

    @handler
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        """Give the names of the extended attributes."""
        with contextlib.suppress(pyfuse3.FUSEError):
            async with self._with_digest(inode, ctx.pid):
                return [pyfuse3.XAttrNameT(DIGEST_XATTR)]
        return []

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Show the image as the size and the bundle as what is used; nothing can be added."""
        image, bundle = self._shown.space()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 512
        data.f_blocks = -(-max(image, bundle) // 512)
        data.f_bfree = data.f_blocks + -bundle // 512
        data.f_bavail = 0
        data.f_files = data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    @silent_handler
    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Forget snapshots; any other inode is a number that follows from the name."""
        for inode, _ in inode_list:
            self._snapshots.forget(inode)
