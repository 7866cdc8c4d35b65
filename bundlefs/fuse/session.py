"""The mount session: FUSE options, the event loop and its tasks. Nothing here knows what a part is.

The tasks beside pyfuse3's loop: one waits until the mount answers and then feeds the watchdog,
one waits for SIGUSR1, one tells a service manager how far the bundle is, one shows progress, and
two wait for a reason to end. All are cancelled once the loop has ended. How it ends is in `ending`.

Concurrency: `serve` is called in the main thread, which becomes the event loop's; what may hang
has a thread of its own, which nobody waits for.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from bundlefs.base import signals
from bundlefs.base.errors import MountError
from bundlefs.base.signals import Held
from bundlefs.fuse.ending import Ending, device_released_first
from bundlefs.fuse.operations import Operations
from bundlefs.fuse.overheard import overheard
from bundlefs.fuse.service import Notifier, feed_watchdog, report_on_signal, tell_status
from bundlefs.fuse.tuning import tune
from bundlefs.fuse.views import Images

log = logging.getLogger(__name__)

_MAX_TASKS = 10_000
"""Each waiting reader holds one; pyfuse3's 99 would stop the mount at a hundred readers."""
_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Session:
    """How to mount: where, as what, with which FUSE options (`name` or `name=value`).

    With `page_cache` the kernel keeps what would be made twice, as far as it has room.
    """

    mountpoint: Path
    source: str
    options: frozenset[str]
    umask: int
    page_cache: bool = True


def serve(
    images: Images,
    session: Session,
    ready: Callable[[], None],
    tick: Callable[[], None] | None = None,
) -> None:
    """Mount, call `ready` when the mount answers, and return when it has ended.

    The end closes the images to answer whoever waits, but does not wait long for that: whoever has
    made them closes them again, which is harmless.

    Args:
        images: what is shown.
        session: where and how.
        ready: called in the event loop's thread.
        tick: called twice a second, to show progress; without it an idle mount sleeps.

    Raises:
        MountError: FUSE refused.
    """
    about: dict[str, object] = {"mountpoint": str(session.mountpoint), "pid": os.getpid()}
    folder = session.mountpoint if session.page_cache else None
    operations = Operations(images, session.umask, about, folder)
    with signals.held() as held, _fuse(operations, session):
        try:
            trio.run(_run, images, session, ready, tick, held)
        finally:
            # Not later: pyfuse3 lets go of what that asks.
            operations.pages.stop()


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
    with device_released_first():
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
    ending = Ending(images, session.mountpoint, notifier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ending.on_signal, held)
        nursery.start_soon(ending.when_unmounted)
        nursery.start_soon(report_on_signal, images)
        nursery.start_soon(_greet, session, ready, notifier)
        if notifier.there:
            nursery.start_soon(tell_status, images, notifier)
        if tick:
            nursery.start_soon(_call_often, tick)
        with ending.serving:
            await pyfuse3.main(max_tasks=_MAX_TASKS)
        ending.announce()
        nursery.cancel_scope.cancel()
    # The event loop complains of a signal that comes while it closes.
    signals.ignore()


async def _call_often(tick: Callable[[], None]) -> None:
    while True:
        try:
            tick()
        # A display is not worth the mount.
        except Exception:
            log.exception("progress is not shown any more")
            return
        await trio.sleep(_TICK_SECONDS)


async def _greet(session: Session, ready: Callable[[], None], notifier: Notifier) -> None:
    """Ask the mount for its own attributes: when it answers, it is ready."""
    # A mount that ends before it is ready never answers: its thread is not waited for.
    about = await trio.to_thread.run_sync(os.stat, session.mountpoint, abandon_on_cancel=True)
    log.info("mounted on %s", session.mountpoint)
    ready()
    notifier.send(READY=1, MAINPID=os.getpid())
    # All works without, and it may take as long as all that came before.
    await trio.to_thread.run_sync(tune, about.st_dev)
    # Before the mount is ready there is nothing to ask.
    await feed_watchdog(session.mountpoint, notifier)
