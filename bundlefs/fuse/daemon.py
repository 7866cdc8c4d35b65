"""Going to the background: a child carries on, and its parent says how it went.

Concurrency: this forks, so it runs before any thread is started.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundlefs.base import signals
from bundlefs.base.errors import MountError

_STANDARD = (0, 1, 2)
_BY_NUMBER = re.compile(r"/(?:dev|proc/[^/]+)/fd/([0-9]+)")
"""How a command line names an open file, as a shell's `<(...)` does."""


def stand_in_for_closed_streams() -> None:
    """Open /dev/null as stdin, stdout or stderr where the caller closed it.

    Otherwise the next file that is opened gets its number: the image could be taken for stderr.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8", errors="replace")  # noqa: SIM115  # for good
            setattr(sys, name, stream)


def in_background(work: Callable[[Callable[[], None]], int]) -> int:
    """Run `work(ready)` in a child of its own session; return 0 once it has called `ready`.

    If the child ends before that, return what it returned; it has said why on stderr, which is
    the caller's until then. Whatever else the caller has left open is closed once the child is
    ready: a lock or a pipe of the caller's would be held for as long as the mount is there.

    Raises:
        MountError: the child was ended before it was ready, and has nothing to say.
    """
    left_open = _left_open()
    for number in left_open:
        # The helpers of the child do not get them either: some of those stay as long.
        os.set_inheritable(number, False)  # noqa: FBT003  # no other way to say it
    reader, writer = os.pipe()
    # Python drops what a signal raises while it forks, and nobody would end the child right after.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe, _ended_with_us(child):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if pipe.read(1):
                if signals.is_program():
                    # The mount is there: nothing may change the exit code any more.
                    signals.ignore()
                return 0
        return _failed(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(reader)
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = work(lambda: _let_go(writer, left_open))
    finally:
        # The parent does its own clean-up (buffers, atexit): it must not be done twice.
        os._exit(code)


@contextmanager
def _ended_with_us(child: int) -> Iterator[None]:
    """End the child if this process is told to end: nobody wants the mount any more."""
    try:
        yield
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        # It may be mounted by now, and must not be when we are gone.
        os.waitpid(child, 0)
        raise


def _failed(code: int) -> int:
    """Return the exit code of a child that was never ready, if it has one of its own.

    Raises:
        MountError: it ended without an error, or by a signal, for which `code` is negative.
    """
    if code > 0:
        return code
    how = f"killed by signal {-code}" if code else "unmounted or told to end"
    raise MountError(f"the mount was {how} before it was ready")


def _left_open() -> frozenset[int]:
    """Return the files that the caller has left open, but not those that an argument names.

    What Python opens is closed on exec; a file that is not so marked was handed down.
    """
    named = {int(found) for word in sys.argv for found in _BY_NUMBER.findall(word)}
    open_now = map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208  # names alone
    found = set()
    for number in open_now:
        # The file of the listing itself is closed by now.
        with suppress(OSError):
            if number not in _STANDARD and os.get_inheritable(number):
                found.add(number)
    return frozenset(found - named)


def _let_go(writer: int, left_open: Iterable[int]) -> None:
    """Tell the parent that all is well, and leave its session, terminal and folder."""
    # Not earlier: until it is mounted, an automount lets only systemd's process group pass.
    os.setsid()
    os.chdir("/")
    sys.stdout.flush()
    sys.stderr.flush()
    with Path(os.devnull).open("r+b") as null:
        for number in _STANDARD:
            os.dup2(null.fileno(), number)
    for number in left_open:
        with suppress(OSError):
            os.close(number)
    os.write(writer, b"\0")
    os.close(writer)
