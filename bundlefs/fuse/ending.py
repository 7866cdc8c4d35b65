"""How a mount ends: there is one way, whatever the reason.

Each reason has a task that waits for it:

- a signal: what is mounted is unmounted here;
- somebody has unmounted it, or was the last to have open what was detached before.

Both call `Ending._end`; whichever comes second finds the end under way. Its steps, in this order:

1. The service manager is told.
2. The images are closed, so that whoever waits gets an answer; pyfuse3 ends with its last one.
3. What is still mounted is unmounted, or detached later (by `session`) where it is in use.
4. pyfuse3's loop is told to end; so is, a little later, whoever waits for storage that hangs.

The end of pyfuse3's loop is the end of the mount, also where it comes by an error and no reason was
given: `session` ends its tasks then. Whoever has made the images closes them in every case, which
does nothing if they are closed by then.

Concurrency: all of this runs in the event loop's thread, and gives threads what may hang.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import trio

from bundlefs.base import signals
from bundlefs.base.signals import Held
from bundlefs.fuse.mountpoint import unmount_if_idle
from bundlefs.fuse.service import Notifier
from bundlefs.fuse.views import Images
from bundlefs.fuse.waiting import in_thread

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
"""For so long an end waits for what is written last, and then for so long again for answers."""
_FUSE_DEVICE = os.makedev(10, 229)
"""It is the same on all Linux hosts, whatever its name [devices.txt]."""


class Ending:
    """The end of a mount. `serving` is cancelled by it: the scope that pyfuse3's loop runs in."""

    def __init__(self, images: Images, mountpoint: Path, notifier: Notifier) -> None:
        self.serving = trio.CancelScope()
        self._images = images
        self._mountpoint = mountpoint
        self._notifier = notifier
        self._announced = False
        self._begun = False

    # Reasons

    async def on_signal(self, held: Held) -> None:
        """Wait for a signal, and end the mount."""
        with trio.open_signal_receiver(*held.ending) as received:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, held.ending)
            try:
                number = held.noted[0] if held.noted else await anext(received)
            finally:
                # A second Ctrl-C while it unmounts would leave a dead mount.
                signal.pthread_sigmask(signal.SIG_BLOCK, held.ending)
            log.info("%s: unmounting", signals.name(number))
            await self._end(mounted=True)

    async def when_unmounted(self) -> None:
        """Wait until the mount is gone, and end what was there for it."""
        with select.epoll() as connection:
            # Its end alone is heard of: an error on the device [fs/fuse/dev.c: fuse_dev_poll].
            for number in _devices():
                connection.register(number, 0)
            await trio.lowlevel.wait_readable(connection.fileno())
        # Another may be mounted there by now: it is not ours to unmount.
        await self._end(mounted=False)

    # The end

    def announce(self) -> None:
        """Tell the service manager, once."""
        if not self._announced:
            self._announced = True
            self._notifier.send(STOPPING=1)

    async def _end(self, *, mounted: bool) -> None:
        """End the mount, for whatever reason; see the module's head."""
        if self._begun:
            return
        self._begun = True
        self.announce()
        await self._answer_all()
        if mounted:
            await self._unmount()
        pyfuse3.terminate()
        # Whoever is not answered by now waits for storage that hangs, and is let go with the mount.
        await trio.sleep(_CLOSE_SECONDS)
        self.serving.cancel()

    async def _answer_all(self) -> None:
        """Answer those who wait; states are written in a thread.

        A disk that hangs holds up neither the answers nor the end. What cannot be written here is
        not written later either, and told then.
        """
        with contextlib.suppress(Exception), trio.move_on_after(_CLOSE_SECONDS):
            await in_thread(self._images.close, 0)

    async def _unmount(self) -> None:
        reason = await trio.to_thread.run_sync(
            unmount_if_idle, self._mountpoint, abandon_on_cancel=True
        )
        if reason:
            log.warning(
                "%s is in use (%s): it is detached, and files that are open there give errors now",
                self._mountpoint,
                reason,
            )


@contextlib.contextmanager
def device_released_first() -> Iterator[None]:
    """Hold the device under the highest number, so that a kill releases it before all else.

    With auto_unmount, fusermount3 waits for the end of a socket of libfuse's, and unmounts if
    the mount answers that it is dead. The kernel releases what a killed process had open from the
    highest number down, and that socket has a higher one than the device: in between, the answer
    is ECONNABORTED, and the mount stayed [util/fusermount.c: should_auto_unmount].
    """
    devices = list(_devices())
    above = 1 + max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208  # names alone
    held = [fcntl.fcntl(device, fcntl.F_DUPFD_CLOEXEC, above) for device in devices]
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _devices() -> Iterator[int]:
    """Find the file of the kernel's requests, which pyfuse3 keeps to itself."""
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208  # names alone
        # The file of another thread may be closed by now.
        with contextlib.suppress(OSError):
            if os.fstat(number).st_rdev == _FUSE_DEVICE:
                yield number
