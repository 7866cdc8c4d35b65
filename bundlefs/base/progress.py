"""How far something long is: told by whoever does it, for the log, a terminal and the status.

A `Wait` is one such thing. Whoever does it says now and then how far it is; from that come lines
in the log, seldom, and none of what is soon done. An observer, if there is one, is told each time.

Concurrency: a wait is moved on by one thread at a time, and any may look at it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

log = logging.getLogger(__name__)
"""The lines of all waits, and nothing else: whoever wants none of them turns this off."""

_SOON_SECONDS = 5.0
"""What takes no longer needs no line."""
_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 60.0
_TENTHS = 10
_MIB = 1 << 20

_PASSES = (("pass_bytes_done", "pass_bytes_total"), ("tar_bytes_done", "tar_size"))
"""Fields of a status that tell how far a pass is: over parts or a compressed file, or an image."""

Observer = Callable[["Wait"], None]


class Due:
    """Decides when a line is due: after a while, then at each tenth, but seldom, or each minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._told: float | None = None
        self._tenths = 0

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return self._clock() - self._begun

    def now(self, done: int, total: int | None) -> bool:
        """Return whether a line is to be written now, which the caller then does."""
        tenths = _TENTHS * done // total if total else 0
        if not self._is_due(tenths):
            return False
        self._told, self._tenths = self.seconds, tenths
        return True

    def _is_due(self, tenths: int) -> bool:
        if self._told is None:
            return self.seconds >= _SOON_SECONDS
        pause = self.seconds - self._told
        return pause >= _LONGEST_PAUSE_SECONDS or (
            pause >= _PAUSE_SECONDS and tenths > self._tenths
        )


class Wait:
    """Something that takes long; over at the end of a `with`.

    Attributes:
        name: of what, for people.
        doing: what is done with it, such as `unpacking`.
        total: bytes that are to be gone through; None if nobody knows.
        done: bytes that have been.
        begun: how many had been when it was first told; None until then.
        over: whether nothing more is done.
    """

    def __init__(self, name: object, doing: str, total: int | None, due: Due | None = None) -> None:
        self.name = name
        self.doing = doing
        self.total = total
        self.done = 0
        self.begun: int | None = None
        self.over = False
        self._due = due or Due()

    @property
    def seconds(self) -> float:
        """For how long it has been under way."""
        return self._due.seconds

    def reached(self, done: int) -> None:
        """Say how many bytes have been gone through; what is gone through again does not count."""
        self.done = done = max(self.done, done)
        if self.begun is None:
            self.begun = done
        if self._due.now(done, self.total):
            rate = (done - self.begun) / max(self.seconds, 0.001)
            log.info("%s: %s, %s", self.name, self.doing, so_far(done, self.total, rate))
        _tell(self)

    def __enter__(self) -> Self:
        if isinstance(self.name, Path):
            _under_way[self.name] = self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say that nothing more is done. Closing it again does nothing."""
        self.over = True
        if isinstance(self.name, Path) and _under_way.get(self.name) is self:
            del _under_way[self.name]
        _tell(self)


def so_far(done: int, total: int | None, rate: float) -> str:
    """Return in words how far something is, and how fast: bytes, and bytes a second."""
    speed = f"{rate / _MIB:.1f} MiB/s"
    if not total:
        return f"{done // _MIB} MiB so far, {speed}"
    return f"{100 * done // total} % of {total / _MIB:.1f} MiB, {speed}"


def pass_of(status: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many bytes a pass has gone through, and of how many; None if none is under way."""
    if status["phase"] not in ("indexing", "unpacking"):
        return None
    passes = ((status.get(done, 0), status.get(total)) for done, total in _PASSES)
    return next(((done, total) for done, total in passes if total), None)


def percent(status: Mapping[str, Any]) -> int | None:
    """Return how far the pass is that is under way, if one is."""
    found = pass_of(status)
    return 100 * found[0] // found[1] if found else None


def of(path: Path) -> Wait | None:
    """Return what is under way with the file at a path, if anything is."""
    return _under_way.get(path)


def observe(observer: Observer | None) -> None:
    """Have all waits told to an observer from now on, in the thread that moves them on."""
    global _observer  # noqa: PLW0603  # a process has one terminal
    _observer = observer


def _tell(wait: Wait) -> None:
    if _observer is not None:
        try:
            _observer(wait)
        except Exception:  # a display is not worth what is shown
            observe(None)
            log.exception("progress is not shown any more")


_under_way: dict[Path, Wait] = {}
_observer: Observer | None = None
