"""The FUSE handlers: inodes, handles, waiting, and the table of errnos. No byte logic.

    /                         a `View`: the files of a bundle, or the image in one
      .bundlefs/              never listed
        status.json           where the bundle stands; always answers at once
        metrics               the same for Prometheus

Waiting is harmless in `getattr`, `opendir`, `read` and `getxattr`, and nowhere
else: while a `lookup` or a `readdir` is unanswered, the kernel sends no other
lookup in that directory. So `lookup` of a part whose size is not known answers
with size 0 and timeouts of 0; the kernel then asks `getattr`, which waits.

An exception that is not a FUSEError ends the whole mount in pyfuse3, so every
handler goes through `_handler`, and the errno is chosen in `_errno` alone.

Concurrency: all of this runs in the event loop's thread. Who waits for the
frontier waits for a future, not in a thread; what computes goes to a thread.
"""

import errno
import functools
import json
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_CONTROL, _STATUS, _METRICS, _FIRST = (pyfuse3.ROOT_INODE + number for number in (1, 2, 3, 4))
_SNAPSHOTS = {STATUS_NAME: _STATUS, METRICS_NAME: _METRICS}
"""Files that are made when they are opened, by name."""

DIGEST_XATTR = b"user.bundlefs.sha1"

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may remember what never changes."""

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


async def until(future: Future[None]) -> None:
    """Wait for a future in the event loop; raise the error that it holds."""
    if not future.done():
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_: Future[None]) -> None:
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


E = TypeVar("E")


class View(Protocol[E]):
    """What is shown: entries `E`, each with a key, a number that never changes.

    `find`, `known_size` and `digest` raise UnknownNameError for what is not there. A future
    tells when the answer to the question of the same name can be had, or holds the error.
    """

    created_ns: int

    def find(self, name: str) -> E:
        """Give the entry of a name that exists or may turn out to."""

    def name(self, entry: E) -> str:
        """Give the name of an entry."""

    def key(self, entry: E) -> int:
        """Give the key of an entry, 0 or more."""

    def entry(self, key: int) -> E:
        """Give the entry of a key."""

    def listed(self) -> Future[None]:
        """Ask for all entries."""

    def entries(self) -> Sequence[E]:
        """Give all entries, as they sort."""

    def sized(self, entry: E) -> Future[None]:
        """Ask for a size."""

    def known_size(self, entry: E) -> int | None:
        """Give a size in bytes, or None if it is not known yet."""

    def reached(self, entry: E, offset: int, length: int) -> Future[None]:
        """Ask for bytes."""

    def read_fast(self, entry: E, offset: int, length: int) -> memoryview | None:
        """Give the bytes if that takes no time."""

    def read(self, entry: E, offset: int, length: int) -> memoryview:
        """Give the bytes; runs in a thread."""

    def has_digest(self, entry: E) -> bool:
        """Tell whether an entry is of a kind that has a digest."""

    def digested(self, entry: E) -> Future[None]:
        """Ask for a digest."""

    def digest(self, entry: E) -> str:
        """Give the SHA-1 in hex."""

    def status(self) -> "DataclassInstance":
        """Tell where it stands, as fields that JSON can hold."""

    def space(self) -> tuple[int, int]:
        """Give the size of the image, and of the bundle as far as it is made; bytes."""

    def close(self) -> None:
        """End it: whoever waits gets an error."""


class Operations(pyfuse3.Operations, Generic[E]):
    """The handlers for one view. `about` is added to the status: facts of the mount."""

    def __init__(self, view: View[E], umask: int, about: dict[str, object]) -> None:
        super().__init__()
        self._view = view
        self._umask = umask
        self._about = about
        self._limiter = trio.CapacityLimiter(_READ_THREADS)
        self._snapshots: dict[int, bytes] = {}
        self._listings: dict[int, Sequence[tuple[str, int]]] = {}
        self._handles = 0

    def _inode(self, entry: E) -> int:
        return _FIRST + self._view.key(entry)

    def _entry(self, inode: int) -> E:
        if inode < _FIRST:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._view.entry(inode - _FIRST)

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
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | (0o555 & ~self._umask))
        attributes.st_nlink = 2
        return attributes

    def _owned(self, attributes: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        created = self._view.created_ns
        attributes.st_mtime_ns = attributes.st_ctime_ns = attributes.st_atime_ns = created
        return attributes

    @_handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Never wait here: see the module's head."""
        text = os.fsdecode(name)
        if parent_inode == _CONTROL and text in _SNAPSHOTS:
            return self._attributes(_SNAPSHOTS[text], None)
        if parent_inode != pyfuse3.ROOT_INODE:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if text == CONTROL_NAME:
            return self._directory(_CONTROL)
        entry = self._view.find(text)
        return self._attributes(self._inode(entry), self._view.known_size(entry))

    @_handler
    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Wait until the size is known, and tell it."""
        if inode in (pyfuse3.ROOT_INODE, _CONTROL):
            return self._directory(inode)
        if inode in _SNAPSHOTS.values():
            return self._attributes(inode, None)
        entry = self._entry(inode)
        await until(self._view.sized(entry))
        return self._attributes(inode, self._view.known_size(entry))

    # Directories

    @_handler
    async def opendir(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        """Wait until all names and sizes are known."""
        names: list[tuple[str, int]] = []
        if inode == pyfuse3.ROOT_INODE:
            await until(self._view.listed())
            names = [(self._view.name(entry), self._inode(entry)) for entry in self._view.entries()]
        handle = self._new_handle()
        self._listings[handle] = names
        return handle

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
            attributes = self._attributes(inode, self._view.known_size(self._entry(inode)))
            encoded = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, encoded, attributes, number + 1):
                return

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
        if inode in _SNAPSHOTS.values():
            handle = self._new_handle()
            self._snapshots[handle] = self._snapshot(inode)
            return pyfuse3.FileInfo(fh=handle, direct_io=True)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    def _snapshot(self, inode: int) -> bytes:
        status = asdict(self._view.status())
        if inode == _METRICS:
            return metrics.text(status).encode()
        return json.dumps(status | self._about, indent=1).encode() + b"\n"

    @_handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Give exactly what was asked for, short only at the end of the file."""
        snapshot = self._snapshots.get(fh)
        if snapshot is not None:
            return snapshot[off : off + size]
        entry = self._entry(fh)
        data = self._view.read_fast(entry, off, size)
        if data is None:
            await until(self._view.reached(entry, off, size))
            data = await trio.to_thread.run_sync(
                self._view.read, entry, off, size, limiter=self._limiter
            )
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
        if name != DIGEST_XATTR or inode < _FIRST or not self._view.has_digest(self._entry(inode)):
            raise pyfuse3.FUSEError(errno.ENODATA)
        entry = self._entry(inode)
        await until(self._view.digested(entry))
        return self._view.digest(entry).encode()

    @_handler
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        """Give the names of the extended attributes."""
        has = inode >= _FIRST and self._view.has_digest(self._entry(inode))
        return [pyfuse3.XAttrNameT(DIGEST_XATTR)] if has else []

    @_handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Show the image as the size and the bundle as what is used; nothing can be added."""
        image, bundle = self._view.space()
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
