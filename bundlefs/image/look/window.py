"""A window on an image, or on a part of it, through which only so much can be read."""

from collections.abc import Callable
from typing import Protocol


class UnreadableError(Exception):
    """What is looked for is not there, is not what it claims to be, or takes too long."""


class Peekable(Protocol):
    """What a look needs of an image: its size, and bytes as far as they are reached."""

    @property
    def size(self) -> int: ...  # noqa: D102  # see the class
    def peek(self, offset: int, length: int) -> bytes: ...  # noqa: D102  # see the class


class Budget:
    """How much may still be read, by all windows on one image together."""

    def __init__(self, reads: int = 2000, size: int = 8 << 20) -> None:
        self._reads = reads
        self._size = size

    def spend(self, length: int) -> None:
        """Take note of a read.

        Raises:
            UnreadableError: nothing is left.
        """
        self._reads -= 1
        self._size -= length
        if self._reads < 0 or self._size < 0:
            raise UnreadableError("that is enough")


class Window:
    """Bytes by offset from `start` on."""

    def __init__(
        self, peek: Callable[[int, int], bytes], size: int, start: int, budget: Budget
    ) -> None:
        self._peek = peek
        self._start = start
        self._budget = budget
        self.size = size

    def at(self, start: int, size: int) -> "Window":
        """Return a window on a part."""
        return Window(self._peek, size, self._start + start, self._budget)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes.

        Raises:
            UnreadableError: they are not all there.
            OSError: the read failed.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UnreadableError("beyond the end")
        self._budget.spend(length)
        data = self._peek(self._start + offset, length)
        if len(data) != length:
            raise UnreadableError("not to be reached")
        return data
