"""How a handler waits: for a future, and only for as long as the one who asked can be waiting.

The kernel lets a process that is told to end wait for our answer, unkillable, and its
FUSE_INTERRUPT does not come through pyfuse3. So while a request is waited for, we look
now and then whether a signal is pending that would end the one who asked [proc(5)], and
answer EINTR then. Other signals change nothing: a sink must not fail for a timer of its own.

Concurrency: `until` and `in_thread` belong to the event loop's thread; futures may be settled in
any other.
"""

import errno
import functools
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pyfuse3
import trio

from bundlefs.base.threads import start_abandonable

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_SECONDS = 0.5
_STATUS = Path("/proc")


def _mask(*signals: int) -> int:
    """Return signals as /proc shows them: a bit for each, from that of signal 1 up."""
    return sum(1 << number - 1 for number in signals)


_HARMLESS = _mask(
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
)
"""The signals that end nobody by default [signal(7)]."""
_REQUESTS = _mask(signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
"""The signals that ask a program to end, also one that has its own way to do so, as a shell has."""


async def until(future: Future[Any], asker: int) -> None:
    """Wait for a future in the event loop; raise the error that it holds.

    `asker` is the thread that waits for us as the kernel numbers it, 0 if it is not known.

    Raises:
        pyfuse3.FUSEError: EINTR; the asker is to end.
    """
    if not future.done():
        event = trio.Event()
        _wake(event, future)
        while not event.is_set():
            with trio.move_on_after(_LOOK_SECONDS if asker else float("inf")):
                await event.wait()
            if not event.is_set() and is_to_end(asker):
                raise pyfuse3.FUSEError(errno.EINTR)
    future.result()


async def in_thread(call: Callable[[], T], asker: int) -> T:
    """Return what `call` returns; it has a thread of its own, and may hang there for good.

    Raises:
        pyfuse3.FUSEError: EINTR; the asker is to end.
    """
    future: Future[T] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            future.set_exception(error)

    start_abandonable(settle, "ask")
    await until(future, asker)
    return future.result()


def _wake(event: trio.Event, future: Future[Any]) -> None:
    token = trio.lowlevel.current_trio_token()

    def wake(_: Future[Any]) -> None:
        try:
            token.run_sync_soon(event.set)
        except trio.RunFinishedError:
            log.debug("a future was done after the event loop")

    future.add_done_callback(wake)


def is_to_end(thread: int) -> bool:
    """Return whether a signal is pending for a thread that ends it, or asks it to end."""
    if not _sees_threads():
        return False
    try:
        text = (_STATUS / str(thread) / "status").read_bytes()
    except OSError:
        # It is of another namespace, or hidden from us.
        return False
    if b"\nState:\tZ" in text:
        # It has ended and waits for nothing.
        return False
    fields = dict(line.split(b":\t", 1) for line in text.splitlines() if line.startswith(b"S"))
    pending, shared, blocked, ignored, caught = (
        int(fields[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")
    )
    heard = (pending | shared) & ~blocked & ~ignored
    return bool(heard & ~caught & ~_HARMLESS or heard & _REQUESTS)


@functools.cache
def _sees_threads() -> bool:
    """Return whether /proc numbers processes as the kernel does for this one."""
    try:
        return (_STATUS / "self").readlink() == Path(str(os.getpid()))
    except OSError:
        return False
