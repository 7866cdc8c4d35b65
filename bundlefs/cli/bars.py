"""Progress, as people see it: every bar of the commands, and the log lines where there is none.

All that takes long is a `Wait` (base/progress.py), which writes its lines by itself. Here it is
drawn.

tqdm draws the bars, with a lock for the threads of one process. Its own lock is for several
processes: it starts one that watches over semaphores, which keeps the standard streams that the
caller gave us, so that whoever waits for their end waits for the mount's
[multiprocessing.resource_tracker].
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm as Bar  # noqa: N812  # it is a class

from bundlefs.base import progress
from bundlefs.base.escapes import escaped
from bundlefs.base.progress import Wait, pass_of
from bundlefs.cli.streams import say
from bundlefs.cli.waits import show_waits

if TYPE_CHECKING:
    from bundlefs.bundling.bundle import Bundle
    from bundlefs.unbundling.decrypting import Progress

__all__ = [
    "Bar",
    "Drawing",
    "IndexProgress",
    "bar",
    "bundle_watched",
    "pass_bar",
]

Bar.set_lock(threading.RLock())

_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
_WIDTH = 78
_LONGEST_NAME = 24
"""Characters, so that there is room for numbers on a narrow terminal."""
_TICK_SECONDS = 0.5


def bar(status: dict[str, Any]) -> str:
    """Draw how far a pass is; nobody knows when it ends while storage does not answer."""
    done, total = pass_of(status) or (0, 1)
    return Bar.format_meter(
        done,
        total,
        0 if status.get("storage_silent_seconds") else status["pass_seconds"],
        ncols=_WIDTH,
        ascii=_ascii_only(sys.stdout),
        **_BYTES,
    )


def _ascii_only(stream: TextIO) -> bool:
    """Return whether a stream has no blocks to draw a bar with."""
    try:
        "\u2588".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False


class Drawing:
    """Draws on a terminal one of all waits that are under way, while there is one.

    Concurrency: waits are told of by threads of their own, at the same time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wait: Wait | None = None
        self._drawn: Any = None

    def __call__(self, wait: Wait) -> None:
        """Show how far a wait is, or that it is over."""
        with self._lock:
            if self._wait is None and not wait.over and sys.stderr.isatty():
                self._begin(wait)
            if self._wait is not wait:
                return
            if wait.over:
                self._drawn.close()
                self._wait = self._drawn = None
            else:
                self._drawn.update(wait.done - self._drawn.n)

    def _begin(self, wait: Wait) -> None:
        self._wait = wait
        name = escaped(PurePath(str(wait.name)).name)[:_LONGEST_NAME]
        self._drawn = _terminal_bar(
            desc=f"{wait.doing} {name}", total=wait.total, initial=wait.begun or 0
        )


@contextmanager
def pass_bar(name: object, doing: str, *, quiet: bool) -> "Iterator[Progress]":
    """Show how far a pass over the parts of a bundle is."""
    with waits_shown(quiet=quiet), Wait(name, doing, None) as wait:

        def tell(done: int, total: int) -> None:
            wait.total = total
            wait.reached(done)

        yield tell


@contextmanager
def waits_shown(*, quiet: bool) -> Iterator[None]:
    """Show for the length of a `with` what takes long, in a command that has no log."""
    handler = _Said()
    show_waits(quiet=quiet)
    if not sys.stderr.isatty():
        progress.log.addHandler(handler)
    try:
        yield
    finally:
        progress.log.removeHandler(handler)
        progress.observe(None)
        progress.log.setLevel(logging.NOTSET)


class _Said(logging.Handler):
    """Says lines to who waits for the command."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def bundle_watched(bundle: "Bundle", *, quiet: bool) -> Iterator[None]:
    """Show how a bundle gets on, from a thread of its own, where there is no event loop."""
    if quiet:
        yield
        return
    tick, end = IndexProgress(), threading.Event()

    def watch() -> None:
        while not end.wait(_TICK_SECONDS):
            tick(bundle)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        tick.close()


class IndexProgress:
    """Makes a wait of the index pass, at which it looks from outside."""

    def __init__(self) -> None:
        self._wait: Wait | None = None

    def __call__(self, bundle: "Bundle") -> None:
        """Show where the bundle stands."""
        status = bundle.status()
        if status.phase == "indexing":
            if self._wait is None:
                self._wait = Wait(status.image, "index pass", status.tar_size)
            self._wait.reached(status.tar_bytes_done)
        elif self._wait:
            self._wait.close()
            self._wait = None

    def close(self) -> None:
        """Show no more."""
        if self._wait:
            self._wait.close()


def _terminal_bar(**about: Any) -> Any:  # noqa: ANN401  # tqdm has no types
    return Bar(**_BYTES, **about, leave=False, disable=None, file=sys.stderr)
