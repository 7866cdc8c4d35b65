"""Progress bars: tqdm, with a lock for the threads of one process.

Its own lock is for several processes: it starts one that watches over semaphores, which keeps
the standard streams that the caller gave us, so that whoever waits for their end waits for the
mount's [multiprocessing.resource_tracker].
"""

import threading
from typing import TextIO

from tqdm import tqdm as Bar  # noqa: N812  # it is a class

__all__ = ["Bar", "ascii_only"]

Bar.set_lock(threading.RLock())


def ascii_only(stream: TextIO) -> bool:
    """Return whether a stream has no blocks to draw a bar with."""
    try:
        "\u2588".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False
