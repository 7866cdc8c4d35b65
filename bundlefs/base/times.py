"""Times as files have them, in nanoseconds since 1970, and how people read them."""

import time

SECOND = 10**9
"""A second, in nanoseconds."""


def local_time(ns: int) -> str:
    """Return a time as the clock on the wall shows it, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns / SECOND))
