"""What a service manager is told of a mount, and what SIGUSR1 shows of its inside.

The sd_notify protocol is one datagram [sd_notify(3)], so it needs no library. The functions here
run as tasks beside the file system's; without a manager there is only the one for SIGUSR1, which
sleeps.
"""

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import trio

from bundlefs.base import signals
from bundlefs.base.errors import MountError
from bundlefs.base.escapes import escaped
from bundlefs.base.progress import percent
from bundlefs.fuse.mountpoint import read_status
from bundlefs.fuse.views import Images

log = logging.getLogger(__name__)

REPORT_SIGNAL = signals.REPORT
_STATUS_SECONDS = 2.0
_MICROSECONDS = 10**6


class Notifier:
    """The socket of the service manager, if there is one. Sending never fails a mount."""

    def __init__(self) -> None:
        # Children must not speak in this process's name.
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # An address that begins with @ is an abstract one.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds() if address else None

    @property
    def there(self) -> bool:
        """Whether there is a manager that listens."""
        return bool(self._address)

    def send(self, **fields: str | int) -> None:
        """Send fields of sd_notify(3), for instance READY=1."""
        if not self._address:
            return
        # A line break in a name would begin a field of its own.
        text = "\n".join(f"{name}={escaped(str(value))}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("the service manager does not take %r: %s", text, error)


def _watchdog_seconds() -> float | None:
    """Return the manager's time limit in seconds, or None if it is not for this process."""
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    meant = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdigit() or meant != str(os.getpid()):
        return None
    return int(microseconds) / _MICROSECONDS


async def tell_status(images: Images, notifier: Notifier) -> None:
    """Tell the manager how far the bundle is, whenever that has changed."""
    told = ""
    while notifier.there:
        text = _status_text(images)
        if text != told:
            notifier.send(STATUS=text)
            told = text
        await trio.sleep(_STATUS_SECONDS)


def _status_text(images: Images) -> str:
    status = asdict(images.status())
    text = f"{status['phase']}: {status['image']}"
    if (done := percent(status)) is not None:
        text += f", {done} %"
    if silent := status.get("storage_silent_seconds"):
        text += f", storage has not answered for {silent:.0f} s"
    if status.get("parts_made"):
        text += f", {status['parts_made']} parts made"
    return f"{text}, {status['error']}" if status["error"] else text


async def feed_watchdog(mountpoint: Path, notifier: Notifier) -> None:
    """Ping while the mount answers: a request goes through the kernel and comes back."""
    if notifier.watchdog_seconds is None:
        return
    while True:
        with trio.move_on_after(notifier.watchdog_seconds):
            try:
                await trio.to_thread.run_sync(read_status, mountpoint, abandon_on_cancel=True)
                notifier.send(WATCHDOG=1)
            except MountError as error:
                log.warning("no ping for the watchdog: %s", error)
        await trio.sleep(notifier.watchdog_seconds / 2)


async def report_on_signal(images: Images) -> None:
    """Log the status, the tasks and the threads at each SIGUSR1: names and lines, no contents."""
    with trio.open_signal_receiver(REPORT_SIGNAL) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {REPORT_SIGNAL})
        async for _ in signals:
            log.info("status: %s", asdict(images.status()))
            root = trio.lowlevel.current_root_task()
            for line in _tasks(root) if root else ():
                log.info("task: %s", line)
            for line in _threads():
                log.info("thread: %s", line)


def _tasks(task: trio.lowlevel.Task, depth: int = 0) -> Iterator[str]:
    frames = [frame for frame, _ in task.iter_await_frames()]
    where = f" at {_place(frames[-1].f_code.co_filename, frames[-1].f_lineno)}" if frames else ""
    yield f"{'  ' * depth}{task.name}{where}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child, depth + 1)


def _threads() -> Iterator[str]:
    for number, frame in sys._current_frames().items():  # noqa: SLF001  # documented, for debuggers
        stack = traceback.extract_stack(frame)[-4:]
        yield f"{number}: " + ", ".join(
            f"{f.name} at {_place(f.filename, f.lineno)}" for f in stack
        )


def _place(path: str, line: int | None) -> str:
    return f"{Path(path).name}:{line}"
