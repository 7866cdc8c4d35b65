"""What takes long, as people see it: a bar on a terminal, else lines.

All of it is a `Wait` (base/progress.py), which writes its lines by itself. `bars` draws.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bundlefs.base import progress
from bundlefs.base.progress import Wait
from bundlefs.cli.streams import say

if TYPE_CHECKING:
    from bundlefs.bundling.bundle import Bundle
    from bundlefs.unbundling.decrypting import Progress

_TICK_SECONDS = 0.5


def show_waits(*, quiet: bool) -> None:
    """Have what takes long shown from now on: on a terminal by a bar, else by lines in the log."""
    progress.log.setLevel(logging.WARNING if quiet else logging.INFO)
    if quiet or not sys.stderr.isatty():
        progress.observe(None)
        return
    from bundlefs.cli.bars import Drawing  # noqa: PLC0415  # tqdm is for terminals

    progress.observe(Drawing())


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
