"""Checks of numbers that a program passes: they must be whole and within their limits."""

import operator
from typing import SupportsIndex

from bundlefs.base.errors import UsageError

MOST = (1 << 63) - 1
"""The largest size and offset that a file can have."""


def whole(what: str, value: SupportsIndex, least: int = 0, most: int = MOST) -> int:
    """Return `value` as an int.

    Raises:
        UsageError: it is not a whole number, or not within `least` and `most`.
    """
    number = _index(value)
    if number is None:
        raise UsageError(f"{what} {value!r}: give a whole number, not a {type(value).__name__}")
    if not least <= number <= most:
        limit = f"{least:,} or more" if number < least else f"{most:,} at most"
        raise UsageError(f"{what} {number:,}: it must be {limit}")
    return number


def _index(value: SupportsIndex) -> int | None:
    # True counts as 1 in Python, but as a size it is a slip of the pen.
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
