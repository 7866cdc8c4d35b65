"""What a bundle is made of: an image to read at an offset, whatever it is kept in.

A protocol and nothing else, so that no user of an image needs to know of its forms.
"""

from pathlib import Path
from typing import Protocol

from bundlefs.base.spans import Span
from bundlefs.image.identity import Identity


class Source(Protocol):
    """An image as a bundle is made of it, whatever it is kept in. Thread-safe."""

    @property
    def path(self) -> Path:
        """Where it is, as an absolute path."""

    @property
    def identity(self) -> Identity:
        """What must stay as it is: the size is that of the image, the rest is of its file."""

    @property
    def size(self) -> int:
        """Bytes, 1 or more."""

    @property
    def bytes_read(self) -> int:
        """How many bytes of the image all reads together have returned."""

    def extents(self) -> tuple[Span, ...]:
        """Return where the image has data, as `Image.extents` does."""

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`, as `Image.read` does."""

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes as far as they are quickly reached, without counting them."""

    def require_unchanged(self) -> None:
        """Compare with what it was on opening, as `Image.require_unchanged` does."""

    def close(self) -> None:
        """Let go of it. Closing it again does nothing."""
