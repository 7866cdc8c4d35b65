"""The mount session: FUSE options, readiness, signals. Nothing here knows what a part is."""

import contextlib
import logging
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from bundlefs.base import signals
from bundlefs.base.errors import MountError
from bundlefs.base.signals import Held
from bundlefs.fuse.mountpoint import in_use
from bundlefs.fuse.operations import Operations
from bundlefs.fuse.overheard import overheard
from bundlefs.fuse.service import (
    Notifier,
    feed_watchdog,
    report_on_signal,
    tell_status,
)
from bundlefs.fuse.views import Images
from bundlefs.fuse.waiting import in_thread

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
"""So long an end waits for what is written last, and again for answers; the rest comes later."""
_MAX_TASKS = 10_000
"""Each waiting reader holds one; pyfuse3's 99 would stop the mount at a hundred readers."""
_TICK_SECONDS = 0.5
_FUSE_DEVICE = os.makedev(10, 229)
"""The same on all Linux hosts, whatever its name [devices.txt]."""
_FUSECTL = Path("/sys/fs/fuse/connections")
_READ_AHEAD_KIB = 1024
_MAX_BACKGROUND = 256


@dataclass(frozen=True, slots=True)
class Session:
    """How to mount: where, as what, with which FUSE options (`name` or `name=value`)."""

    mountpoint: Path
    source: str
    options: frozenset[str]
    umask: int


def serve(
    images: Images,
    session: Session,
    ready: Callable[[], None],
    tick: Callable[[], None] | None = None,
) -> None:
    """Mount, call `ready` when the mount answers, and return when it has ended.

    `tick` is called twice a second, for who shows progress; without it an idle mount sleeps.
    """
    about: dict[str, object] = {"mountpoint": str(session.mountpoint), "pid": os.getpid()}
    operations = Operations(images, session.umask, about)
    with signals.held() as held, _fuse(operations, session):
        trio.run(_run, images, session, ready, tick, held)


def _for_the_table(source: str) -> str:
    """Write the source for the kernel's table as libfuse reads it: pyfuse3 takes ASCII alone.

    mount(8) compares it with fstab's, to see what is mounted.
    """
    # A comma parts options; libfuse takes any byte as `\ooo` [fuse_opt.c].
    special = re.compile(rb"[^ -~]|[,\\]")
    return special.sub(lambda byte: b"\\%03o" % ord(byte[0]), os.fsencode(source)).decode("ascii")


@contextmanager
def _fuse(operations: pyfuse3.Operations, session: Session) -> Iterator[None]:
    options = {*pyfuse3.default_options, "ro", f"fsname={_for_the_table(session.source)}"}
    options |= {"subtype=bundlefs", *session.options}
    try:
        with overheard():
            pyfuse3.init(operations, str(session.mountpoint), options)
    except (RuntimeError, UnicodeEncodeError) as error:
        given = ",".join(sorted(session.options)) or "none"
        raise MountError(
            f"FUSE refused to mount on {session.mountpoint} (options: {given}); see the line before"
        ) from error
    try:
        yield
    finally:
        pyfuse3.close(unmount=True)


async def _run(
    images: Images,
    session: Session,
    ready: Callable[[], None],
    tick: Callable[[], None] | None,
    held: Held,
) -> None:
    notifier = Notifier()
    serving = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, images, session, notifier, held, serving)
        nursery.start_soon(_close_when_gone, images)
        nursery.start_soon(report_on_signal, images)
        nursery.start_soon(_greet, session, ready, notifier)
        if notifier.there:
            nursery.start_soon(tell_status, images, notifier)
        if tick:
            nursery.start_soon(_call_often, tick)
        with serving:
            await pyfuse3.main(max_tasks=_MAX_TASKS)
        notifier.send(STOPPING=1)
        nursery.cancel_scope.cancel()
    # The event loop complains of a signal that comes while it closes.
    signals.ignore()


async def _call_often(tick: Callable[[], None]) -> None:
    while True:
        try:
            tick()
        # What is shown is not worth the mount.
        except Exception:
            log.exception("progress is not shown any more")
            return
        await trio.sleep(_TICK_SECONDS)


async def _end_on_signal(
    images: Images, session: Session, notifier: Notifier, held: Held, serving: trio.CancelScope
) -> None:
    with trio.open_signal_receiver(*held.ending) as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held.ending)
        try:
            number = held.noted[0] if held.noted else await anext(received)
        finally:
            # A second Ctrl-C while it unmounts would leave a dead mount.
            signal.pthread_sigmask(signal.SIG_BLOCK, held.ending)
        log.info("%s: unmounting", signals.name(number))
        notifier.send(STOPPING=1)
        await _close(images)
        if reason := await trio.to_thread.run_sync(
            in_use, session.mountpoint, abandon_on_cancel=True
        ):
            log.warning(
                "%s is in use (%s): it is detached, and files that are open there give errors now",
                session.mountpoint,
                reason,
            )
        pyfuse3.terminate()
        # Whoever is not answered by now waits for storage that hangs, and is let go with the mount.
        await trio.sleep(_CLOSE_SECONDS)
        serving.cancel()


async def _close(images: Images) -> None:
    """Answer those who wait, which pyfuse3's end depends on; states are written in a thread.

    A disk that hangs holds up neither the answers nor the end. What cannot be written here is
    not written later either, and told then.
    """
    with contextlib.suppress(Exception), trio.move_on_after(_CLOSE_SECONDS):
        await in_thread(images.close, 0)


async def _close_when_gone(images: Images) -> None:
    """Drop what is still asked for when somebody has unmounted.

    pyfuse3 ends with its last answer, also with one that nobody waits for any more.
    """
    with select.epoll() as connection:
        # Of nothing but its end, an error on the device [fs/fuse/dev.c: fuse_dev_poll].
        for number in _devices():
            connection.register(number, 0)
        await trio.lowlevel.wait_readable(connection.fileno())
    await _close(images)


def _devices() -> Iterator[int]:
    """Find the file of the kernel's requests, which pyfuse3 keeps to itself."""
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208  # names alone
        # Another thread's may be closed by now.
        with contextlib.suppress(OSError):
            if os.fstat(number).st_rdev == _FUSE_DEVICE:
                yield number


async def _greet(session: Session, ready: Callable[[], None], notifier: Notifier) -> None:
    """Ask the mount for its own attributes: when it answers, it is ready."""
    # A mount that ends before it is ready never answers: its thread is not waited for.
    about = await trio.to_thread.run_sync(os.stat, session.mountpoint, abandon_on_cancel=True)
    await trio.to_thread.run_sync(_tune, about.st_dev)
    log.info("mounted on %s", session.mountpoint)
    ready()
    notifier.send(READY=1, MAINPID=os.getpid())
    # Not before: there is nothing to ask.
    await feed_watchdog(session.mountpoint, notifier)


def _tune(device: int) -> None:
    """Ask the kernel for larger and more reads at once; only root may, and all works without."""
    number = f"{os.major(device)}:{os.minor(device)}"
    _set(Path(f"/sys/class/bdi/{number}/read_ahead_kb"), _READ_AHEAD_KIB)
    knob = _FUSECTL / str(os.minor(device)) / "max_background"
    if not _set(knob, _MAX_BACKGROUND) and os.geteuid() == 0:
        _set_privately(knob, _MAX_BACKGROUND)


def _set(path: Path, value: int) -> bool:
    try:
        path.write_text(str(value), encoding="ascii")
    except OSError as error:
        log.debug("%s: %s", path, error.strerror)
        return False
    return True


def _set_privately(knob: Path, value: int) -> None:
    """Set it where the control file system is not mounted (containers), as seen by us alone.

    The kernel lets 12 reads of the page cache wait at a time by default: a dozen readers far
    ahead of the frontier would hold up those of parts that are made.
    """
    script = f"mount -t fusectl none {_FUSECTL} && echo {value} >{knob}"
    # A private copy of the mounts would keep alive what is unmounted meanwhile.
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # numbers alone
        log.debug("max_background: %s", done.stderr.decode("utf-8", "replace") or "set")
