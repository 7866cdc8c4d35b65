"""Every bar of the commands. `waits` tells what is drawn, and loads this for a terminal alone.

tqdm draws the bars, with a lock for the threads of one process. Its own lock is for several
processes: it starts one that watches over semaphores, which keeps the standard streams that the
caller gave us, so that whoever waits for their end waits for the mount's
[multiprocessing.resource_tracker].
"""

import sys
import threading
from pathlib import PurePath
from typing import Any, TextIO

from tqdm import tqdm as Bar  # noqa: N812  # it is a class

from bundlefs.base.escapes import escaped
from bundlefs.base.progress import Wait, pass_of

__all__ = ["Bar", "Drawing", "bar"]

Bar.set_lock(threading.RLock())

_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
_WIDTH = 78
_LONGEST_NAME = 24
"""Characters, so that there is room for numbers on a narrow terminal."""


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


def _terminal_bar(**about: Any) -> Any:  # noqa: ANN401  # tqdm has no types
    return Bar(**_BYTES, **about, leave=False, disable=None, file=sys.stderr)
