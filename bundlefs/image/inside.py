"""An image inside a file: the content by offset, and the file that must stay as it is.

Concurrency: any number of threads may read. Only the count of bytes is mutable, and a lock
guards it.
"""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bundlefs.base.errors import ImageChangedError, ImageError, InconsistentError
from bundlefs.base.spans import Span
from bundlefs.image.identity import Identity
from bundlefs.image.raw import Image


class Content(Protocol):
    """The raw image that is in a file. Thread-safe."""

    @property
    def size(self) -> int:
        """Bytes, 1 or more."""

    def extents(self) -> tuple[Span, ...]:
        """Return where there is data: sorted, disjoint, none empty or touching the next."""

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`."""

    def close(self) -> None:
        """Let go of it. Closing it again does nothing."""


class InsideImage:
    """A `Source` made of a file and of the content in it. It owns both.

    Args:
        file: the file.
        content: what is in it.
        near: how many bytes of the content are quickly reached; all by default.
    """

    def __init__(self, file: Image, content: Content, near: int | None = None) -> None:
        self._file = file
        self._content = content
        self._near = content.size if near is None else min(near, content.size)
        self._bytes_read = 0
        self._count_lock = threading.Lock()
        self.identity: Identity = replace(file.identity, size=content.size)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes of the image inside."""
        return self.identity.size

    @property
    def bytes_read(self) -> int:
        """How many bytes of the image all reads together have returned."""
        return self._bytes_read

    def extents(self) -> tuple[Span, ...]:
        """Return where the image has data.

        Raises:
            ImageChangedError: the file is not what was opened.
            OSError: the file system fails.
        """
        found = self._content.extents()
        self._file.require_unchanged()
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`, which must lie within the image.

        Raises:
            ImageChangedError: the file is not what was opened.
            InconsistentError: it does not unpack to what it did before.
            OSError: the read failed.
        """
        data = self._checked_read(offset, length)
        with self._count_lock:
            self._bytes_read += length
        return data

    def peek(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`, as far as they are quickly reached; uncounted.

        Raises:
            OSError: the read failed.
            BundlefsError: as `read`.
        """
        length = min(length, max(self._near - offset, 0))
        return self._checked_read(offset, length) if length else b""

    def _checked_read(self, offset: int, length: int) -> bytes:
        try:
            data = self._content.read(offset, length)
        except ImageChangedError:
            raise
        except ImageError as error:
            # It was whole when it was opened.
            self._file.require_unchanged()
            raise InconsistentError(str(error)) from error
        except OSError:
            # For a file that was cut off, qemu reports that it cannot be read.
            self._file.require_unchanged()
            raise
        self._file.require_unchanged()
        return data

    def require_unchanged(self) -> None:
        """Compare the file with what it was on opening.

        Raises:
            ImageChangedError: the file is not what was opened, or another is in its place.
        """
        self._file.require_unchanged()

    def close(self) -> None:
        """Close content and file. Closing them again does nothing."""
        self._content.close()
        self._file.close()
