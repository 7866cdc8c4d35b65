"""Going to the background: a child that carries on, a parent that says how it went."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from bundlefs.errors import MountError


def stand_in_for_closed_streams() -> None:
    """Open /dev/null as stdin, stdout or stderr where the caller closed it.

    Else the next file that is opened gets its number: the image could be taken for stderr.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8", errors="replace")  # noqa: SIM115  # for good
            setattr(sys, name, stream)


def in_background(work: Callable[[Callable[[], None]], int]) -> int:
    """Run `work(ready)` in a child of its own session; return 0 once it has called `ready`.

    If it ends before, return what it returned; it has said why on stderr, which stays
    the caller's until then.

    Raises:
        MountError: it was ended before it was ready, and has nothing to say.
    """
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if pipe.read(1):
                return 0
        return _failed(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(reader)
    code = 1
    try:
        code = work(lambda: _let_go(writer))
    finally:
        # The parent's own clean-up (buffers, atexit) is not this process's to do twice.
        os._exit(code)


def _failed(code: int) -> int:
    """Give the exit code of a child that was never ready, negative for a signal, if it is one."""
    if code > 0:
        return code
    how = f"killed by signal {-code}" if code else "unmounted or told to end"
    raise MountError(f"the mount was {how} before it was ready")


def _let_go(writer: int) -> None:
    """Tell the parent that all is well, and leave its session, terminal and folder."""
    # Not before: an automount lets none but systemd's own process group pass until then.
    os.setsid()
    os.chdir("/")
    sys.stdout.flush()
    sys.stderr.flush()
    with Path(os.devnull).open("r+b") as null:
        for number in (0, 1, 2):
            os.dup2(null.fileno(), number)
    os.write(writer, b"\0")
    os.close(writer)
