"""Memory that is used again and again: the kernel clears no page anew for each piece that is made.

Nobody gives a buffer back. It may be used again as soon as no view of it is left, which is what
Python itself insists on before it lets a `bytearray` change its size.

Concurrency: any thread.
"""

from collections import deque


class Buffers:
    """Buffers of `size` bytes, of which at most `most` are kept for later."""

    def __init__(self, size: int, most: int) -> None:
        self.size = size
        self._kept: deque[bytearray] = deque(maxlen=most)

    def take(self) -> memoryview:
        """Return a buffer that nobody else has a view of; what is in it is anything."""
        buffer = self._idle() or bytearray(self.size)
        view = memoryview(buffer)
        # Those in use come last, so that the search for one that is not is short.
        self._kept.append(buffer)
        return view

    def _idle(self) -> bytearray | None:
        for _ in range(len(self._kept)):
            try:
                buffer = self._kept.popleft()
            except IndexError:  # another thread has taken it
                return None
            if _is_idle(buffer):
                return buffer
            self._kept.append(buffer)
        return None


def _is_idle(buffer: bytearray) -> bool:
    """Return whether nobody has a view of a buffer: only then does its size change."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
