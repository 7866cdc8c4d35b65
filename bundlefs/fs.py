"""The FUSE handlers: inodes, handles, waiting, and the table of errnos. No byte logic.

    /                         a `View`: the files of a bundle, or the image in one
      .bundlefs/              never listed
        status.json           where the bundle stands; always answers at once
        metrics               the same for Prometheus

    /                         a `Shelf`: a folder for each of many images
      .bundlefs/              the same for all of them
      NAME/                   a `View`, with a .bundlefs of its own

An inode is the number of its view, in steps of `_STRIDE`, and the view's own key.

Waiting is harmless in `getattr`, `opendir`, `read` and `getxattr`, and nowhere
else: while a `lookup` or a `readdir` is unanswered, the kernel sends no other
lookup in that directory. So `lookup` of a part whose size is not known answers
with size 0 and timeouts of 0; the kernel then asks `getattr`, which waits. Alone the
first lookup in an image's folder waits for that image to be opened.

An exception that is not a FUSEError ends the whole mount in pyfuse3, so every
handler goes through `_handler`, and the errno is chosen in `_errno` alone.

Concurrency: all of this runs in the event loop's thread. Who waits for the
frontier waits for a future, not in a thread; what computes goes to a thread.
"""

import contextlib
import errno
import functools
import json
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, ParamSpec, TypeVar, cast

import pyfuse3
import trio

from bundlefs import metrics
from bundlefs.errors import (
    BundlefsError,
    ClosedError,
    ImageChangedError,
    UnknownNameError,
)
from bundlefs.mountpoint import CONTROL_NAME, METRICS_NAME, STATUS_NAME
from bundlefs.shelf import Shelf
from bundlefs.views import View

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_ROOT = pyfuse3.ROOT_INODE
_CONTROL, _STATUS, _METRICS, _FIRST = (_ROOT + number for number in (1, 2, 3, 4))
_SNAPSHOTS = {STATUS_NAME: _STATUS, METRICS_NAME: _METRICS}
"""Files that are made when they are opened, by name."""
_STRIDE = 1 << 40

DIGEST_XATTR = b"user.bundlefs.sha1"

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may remember what never changes."""
_SOON = 1.0
"""Seconds after which it asks whether the image of a name is still the same."""

_LOOK_SECONDS = 0.5
_READ_THREADS = 64

_ERRNOS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownNameError, errno.ENOENT),
    (ImageChangedError, errno.ESTALE),
    (ClosedError, errno.ENOTCONN),
    (BundlefsError, errno.EIO),
)


def _errno(error: Exception) -> int:
    """Choose what the caller sees: the image's own errno, or the table's."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            return number
    log.error("unexpected error in a handler", exc_info=error)
    return errno.EIO


def _handler(
    method: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(_errno(error)) from error

    return guarded


async def until(future: Future[Any]) -> None:
    """Wait for a future in the event loop; raise the error that it holds."""
    if not future.done():
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_: Future[Any]) -> None:
            try:
                token.run_sync_soon(event.set)
            except trio.RunFinishedError:
                log.debug("a future was done after the event loop")

        future.add_done_callback(wake)
        await event.wait()
    future.result()


def _listing_handler(
    method: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await _handler(method)(*args, **kwargs)
        except pyfuse3.FUSEError as error:
            # The C library takes ENOENT of a readdir for the end of the folder.
            number = errno.EIO if error.errno == errno.ENOENT else error.errno
            raise pyfuse3.FUSEError(number) from error

    return guarded


def _silent_handler(
    method: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, Coroutine[Any, Any, None]]:
    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(*args, **kwargs)
        # Nobody waits for an answer, and to pyfuse3 even a FUSEError is the end here.
        except Exception:
            log.exception("unexpected error in a handler")

    return guarded


class Operations(pyfuse3.Operations):
    """The handlers. `about` is added to the status: facts of the mount."""

    def __init__(self, shown: View[Any] | Shelf, umask: int, about: dict[str, object]) -> None:
        super().__init__()
        self._shown = shown
        self._umask = umask
        self._about = about
        self._limiter = trio.CapacityLimiter(_READ_THREADS)
        self._snapshots: dict[int, bytes] = {}
        self._listings: dict[int, Sequence[tuple[str, int]]] = {}
        self._handles = 0

    # Inodes

    def _view(self, number: int) -> View[Any] | None:
        """Give the view of a number if it is open."""
        return self._shown.view(number) if isinstance(self._shown, Shelf) else self._shown

    async def _opened(self, number: int) -> View[Any]:
        """Give the view of a number once it is open."""
        if view := self._view(number):
            return view
        future = cast("Shelf", self._shown).ask(number)
        await until(future)
        return future.result()

    def _entry(self, inode: int) -> tuple[View[Any], Any]:
        number, local = divmod(inode, _STRIDE)
        view = self._view(number)
        if view is None or local < _FIRST:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return view, view.entry(local - _FIRST)

    def _with_digest(self, inode: int) -> tuple[View[Any], Any]:
        if inode % _STRIDE >= _FIRST:
            view, entry = self._entry(inode)
            if view.has_digest(entry):
                return view, entry
        raise pyfuse3.FUSEError(errno.ENODATA)

    # Attributes

    def _attributes(self, inode: int, size: int | None) -> pyfuse3.EntryAttributes:
        """Give the attributes of a file, for good; with no size, of a name for an instant."""
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(inode)
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFREG | (0o444 & ~self._umask))
        attributes.st_nlink = 1
        attributes.st_size = size or 0
        attributes.st_blocks = -(-attributes.st_size // 512)
        attributes.st_blksize = 1 << 20
        attributes.attr_timeout = attributes.entry_timeout = 0.0 if size is None else FOREVER
        return self._owned(attributes)

    def _directory(self, inode: int) -> pyfuse3.EntryAttributes:
        attributes = self._attributes(inode, 0)
        if inode % _STRIDE == _ROOT != inode:
            attributes.entry_timeout = _SOON
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | (0o555 & ~self._umask))
        attributes.st_nlink = 2
        return attributes

    def _owned(self, attributes: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        view = self._view(attributes.st_ino // _STRIDE) or self._shown
        created = view.created_ns
        attributes.st_mtime_ns = attributes.st_ctime_ns = attributes.st_atime_ns = created
        return attributes

    @_handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Never wait here: see the module's head."""
        number, local = divmod(parent_inode, _STRIDE)
        text = os.fsdecode(name)
        if local == _CONTROL and text in _SNAPSHOTS:
            return self._attributes(number * _STRIDE + _SNAPSHOTS[text], None)
        if local != _ROOT:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if text == CONTROL_NAME:
            return self._directory(number * _STRIDE + _CONTROL)
        if shelf := self._shelf(parent_inode):
            image = await trio.to_thread.run_sync(shelf.find, text)
            return self._directory(image * _STRIDE + _ROOT)
        view = await self._opened(number)
        entry = view.find(text)
        inode = number * _STRIDE + _FIRST + view.key(entry)
        return self._attributes(inode, view.known_size(entry))

    def _shelf(self, inode: int) -> Shelf | None:
        """Give the shelf if this is its own folder."""
        return self._shown if isinstance(self._shown, Shelf) and inode == _ROOT else None

    @_handler
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Wait until the size is known, and tell it."""
        local = inode % _STRIDE
        if local in (_ROOT, _CONTROL):
            return self._directory(inode)
        if local in _SNAPSHOTS.values():
            return self._attributes(inode, None)
        view, entry = self._entry(inode)
        await until(view.sized(entry))
        return self._attributes(inode, view.known_size(entry))

    # Directories

    @_handler
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        """Wait until all names and sizes are known."""
        names = await self._names(inode) if inode % _STRIDE == _ROOT else []
        handle = self._new_handle()
        self._listings[handle] = names
        return handle

    async def _names(self, inode: int) -> Sequence[tuple[str, int]]:
        if shelf := self._shelf(inode):
            images = await trio.to_thread.run_sync(shelf.scan)
            return [(name, number * _STRIDE + _ROOT) for name, number in images]
        view = await self._opened(inode // _STRIDE)
        view.look()
        await until(view.listed())
        first = inode - _ROOT + _FIRST
        return [(view.name(entry), first + view.key(entry)) for entry in view.entries()]

    def _new_handle(self) -> pyfuse3.FileHandleT:
        # Below the inodes of the entries, which are their own handles.
        self._handles -= 1
        return pyfuse3.FileHandleT((1 << 63) + self._handles)

    @_listing_handler
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Never wait here: see the module's head."""
        names = self._listings[fh]
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

    @_handler
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Forget the listing."""
        self._listings.pop(fh, None)

    # Files

    @_handler
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Start nothing: sinks open every file once while they list."""
        if inode % _STRIDE in _SNAPSHOTS.values():
            handle = self._new_handle()
            await self._look(inode // _STRIDE)
            self._snapshots[handle] = self._snapshot(inode)
            return pyfuse3.FileInfo(fh=handle, direct_io=True)
        view, _ = self._entry(inode)
        # The kernel gives what it remembers of a file without asking again.
        await trio.to_thread.run_sync(view.check, limiter=self._limiter)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def _look(self, number: int) -> None:
        """Let the status tell of a change of the image; it is told at once, whatever hangs."""
        if view := self._view(number):
            with trio.move_on_after(_LOOK_SECONDS):
                await until(view.look())

    def _snapshot(self, inode: int) -> bytes:
        number, local = divmod(inode, _STRIDE)
        shelf = self._shown if isinstance(self._shown, Shelf) and number else None
        status = asdict(shelf.slot_status(number) if shelf else self._shown.status())
        if local == _METRICS:
            return metrics.text(status).encode()
        return json.dumps(status | self._about, indent=1).encode() + b"\n"

    @_handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Give exactly what was asked for, short only at the end of the file."""
        snapshot = self._snapshots.get(fh)
        if snapshot is not None:
            return snapshot[off : off + size]
        view, entry = self._entry(fh)
        data = view.read_fast(entry, off, size)
        if data is None:
            await until(view.reached(entry, off, size))
            data = await trio.to_thread.run_sync(view.read, entry, off, size, limiter=self._limiter)
        # pyfuse3 takes any buffer; its annotation says bytes.
        return cast("bytes", data)

    @_handler
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Forget a snapshot."""
        self._snapshots.pop(fh, None)

    # The rest

    @_handler
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        """Give the SHA-1 of a part, once it is complete."""
        if name != DIGEST_XATTR:
            raise pyfuse3.FUSEError(errno.ENODATA)
        view, entry = self._with_digest(inode)
        await until(view.digested(entry))
        return view.digest(entry).encode()

    @_handler
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        """Give the names of the extended attributes."""
        with contextlib.suppress(pyfuse3.FUSEError):
            self._with_digest(inode)
            return [pyfuse3.XAttrNameT(DIGEST_XATTR)]
        return []

    @_handler
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

    @_silent_handler
    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Nothing to forget: an inode is a number that follows from the name."""
