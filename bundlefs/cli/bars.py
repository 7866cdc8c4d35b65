"""Progress, as people see it: every bar of the commands, and the log lines where there is none.

tqdm draws the bars, with a lock for the threads of one process. Its own lock is for several
processes: it starts one that watches over semaphores, which keeps the standard streams that the
caller gave us, so that whoever waits for their end waits for the mount's
[multiprocessing.resource_tracker].
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm as Bar  # noqa: N812  # it is a class

if TYPE_CHECKING:
    from bundlefs.bundling.bundle import Bundle
    from bundlefs.unbundling.extract import Progress

__all__ = ["Bar", "bar", "bundle_watched", "index_progress", "pass_bar"]

log = logging.getLogger(__name__)

Bar.set_lock(threading.RLock())

_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
_WIDTH = 78
_TICK_SECONDS = 0.5
_SOON_SECONDS = 5
"""What takes no longer needs no log lines of how it gets on."""


def bar(status: dict[str, Any]) -> str:
    """Draw how far an index pass is; nobody knows when it ends while storage does not answer."""
    return Bar.format_meter(
        status["tar_bytes_done"],
        status["tar_size"],
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


@contextmanager
def pass_bar() -> "Iterator[Progress]":
    """Show on a terminal how far a pass over the parts of a bundle is."""
    with _terminal_bar() as drawn:
        yield lambda done, total: _move(drawn, done, total)


@contextmanager
def bundle_watched(bundle: "Bundle") -> Iterator[None]:
    """Show how a bundle gets on, from a thread of its own, where there is no event loop."""
    tick, end = index_progress(), threading.Event()

    def watch() -> None:
        if not sys.stderr.isatty():
            end.wait(_SOON_SECONDS)
        while not end.wait(_TICK_SECONDS):
            tick(bundle)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def index_progress() -> "Callable[[Bundle], None]":
    """Return what shows where a bundle stands each time that it is called.

    That is a bar on a terminal, and a log line for each tenth elsewhere.
    """
    return _IndexBar() if sys.stderr.isatty() else _Lines()


def _terminal_bar() -> Any:  # noqa: ANN401  # tqdm has no types
    return Bar(**_BYTES, leave=False, disable=None, file=sys.stderr)


def _move(drawn: Any, done: int, total: int) -> None:  # noqa: ANN401  # same
    drawn.total = total
    drawn.update(done - drawn.n)


class _IndexBar:
    """A bar that is there while the index pass is."""

    def __init__(self) -> None:
        self._drawn = _terminal_bar()
        self._drawn.clear()

    def __call__(self, bundle: "Bundle") -> None:
        status = bundle.status()
        if status.phase == "indexing":
            _move(self._drawn, status.tar_bytes_done, status.tar_size)
        else:
            self._drawn.clear()


class _Lines:
    """A log line for each tenth of the index pass."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, bundle: "Bundle") -> None:
        status = bundle.status()
        tenths = 10 * status.tar_bytes_done // status.tar_size
        if tenths > self._told:
            self._told = tenths
            log.info("%d %% of the image, %d parts made", 10 * tenths, status.parts_made)
