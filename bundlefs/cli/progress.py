"""How the foreground shows the index pass: a bar on a terminal, else log lines."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bundlefs.bundling.bundle import Bundle
from bundlefs.cli.bars import Bar

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.5


def progress() -> Callable[[Bundle], None]:
    """Give what shows where a bundle stands each time that it is called."""
    return _Bar() if sys.stderr.isatty() else _Lines()


@contextmanager
def shown(bundle: Bundle) -> Iterator[None]:
    """Show how a bundle gets on, from a thread of its own, where there is no event loop."""
    tick, end = progress(), threading.Event()

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


class _Bar:
    """A progress bar that is there while the index pass is."""

    def __init__(self) -> None:
        self._bar = Bar(unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None)
        self._bar.clear()

    def __call__(self, bundle: Bundle) -> None:
        status = bundle.status()
        if status.phase == "indexing":
            self._bar.total = status.tar_size
            self._bar.update(status.tar_bytes_done - self._bar.n)
        else:
            self._bar.clear()


class _Lines:
    """A log line for each tenth of the index pass."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, bundle: Bundle) -> None:
        status = bundle.status()
        tenths = 10 * status.tar_bytes_done // status.tar_size
        if tenths > self._told:
            self._told = tenths
            log.info("%d %% of the image, %d parts made", 10 * tenths, status.parts_made)
