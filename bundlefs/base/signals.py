"""Signals that would kill the program: it ends in an orderly way instead, whenever they come.

Each signal whose default is to kill has one of three meanings, one after the other:

- while modules are loaded, the program is gone at once, without a traceback;
- while a command works, `Ended` is raised, and what was begun is cleaned up;
- while something is mounted, the mount's own event loop hears of it and unmounts.

SIGKILL cannot be handled, and the signals of a broken program (SIGSEGV and its like) must kill it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

REPORT = signal.SIGUSR1
"""A mount logs its status; any other program ends."""

_KILLED = 128
"""A shell's exit code for a program that a signal ended, less the signal."""

_NOT_ENDING = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSTOP),
    *(signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
    # Python has them ignored: a write tells.
    *(signal.SIGPIPE, signal.SIGXFSZ),
}
ENDING = frozenset(signal.valid_signals()) - _NOT_ENDING
"""All others end a program by default [signal(7)]."""

_ALWAYS_HEARD = {signal.SIGTERM, signal.SIGINT}
"""A mount ends by them though its caller ignores them, as a script's `&` does with SIGINT."""


class Ended(KeyboardInterrupt):
    """A signal has told the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a program that was told to end."""
    return _KILLED + (error.number if isinstance(error, Ended) else signal.SIGINT)


def name(number: int) -> str:
    """Return the name of a signal; those between SIGRTMIN and SIGRTMAX have numbers alone."""
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"SIGRTMIN+{number - signal.SIGRTMIN}")


def is_program() -> bool:
    """Tell whether this process is one of our commands, and not somebody's program."""
    started = Path(sys.argv[0] if sys.argv else "")
    name = started.parent.name if started.name == "__main__.py" else started.name
    return name.endswith("bundlefs")


def end_at_once() -> None:
    """Let signals end the program without a word: there is nothing to clean up yet."""
    _take_over(_leave)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(_KILLED + number)


@contextmanager
def raised() -> Iterator[None]:
    """Raise `Ended` in the main thread at the first signal; later ones change nothing.

    Ctrl-C is the exception: it may be the only way out if cleaning up hangs.
    """
    told: list[int] = []

    def tell(number: int, _: FrameType | None) -> None:
        told.append(number)
        if len(told) == 1 or number == signal.SIGINT:
            raise Ended(number)

    before = _take_over(tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            # Whoever has set another one meanwhile had a reason.
            if signal.getsignal(number) is tell:
                signal.signal(number, handler)


def _take_over(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Handle all signals that nobody handles or ignores; return what was set before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    settings = {number: signal.getsignal(number) for number in ENDING}
    ours = (signal.SIG_DFL, signal.default_int_handler, _leave)
    return {
        number: signal.signal(number, handler)
        for number, setting in settings.items()
        if setting in ours
    }


def ignore() -> None:
    """Ignore all signals from now on, and so do programs that are started: the work is done.

    Python itself is not told. It would complain on stderr of one that it has heard of and not yet
    handled [CPython, Modules/signalmodule.c, "ignored due to race condition"].
    """
    import ctypes  # noqa: PLC0415  # whoever only asks does not get here

    kernel = ctypes.CDLL(None).signal
    kernel.argtypes, kernel.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    for number in ENDING:
        signal.signal(number, _nothing)
        kernel(number, int(signal.SIG_IGN))


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Held:
    """Signals that are held back: those that end the program, and those that other threads got."""

    ending: frozenset[int]
    noted: list[int] = field(default_factory=list)


@contextmanager
def held() -> Iterator[Held]:
    """Hold signals back for the code that takes them; at the end, drop them and all to come.

    A signal at a moment when it is not held back would leave a dead mount behind.
    """
    ignored = {number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN}
    ending = ENDING - {REPORT} - (ignored - _ALWAYS_HEARD)
    held = Held(ending)
    for number in ending:
        signal.signal(number, lambda number, _: held.noted.append(number))
    signal.signal(REPORT, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending | {REPORT})
    try:
        yield held
    finally:
        ignore()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
