"""The image in a gzip file, by access points and without a copy.

The size that a gzip file states is that of its last member, modulo 4 GiB, so one pass over the
file finds the size. The points are made as the image is read, one for each 4 MiB of it; in a
large image they lie further apart, so that they take 128 MiB of memory at most (4,096 points of
32 KiB), however much a small file unpacks to.

Size and points are kept, with the identity of the file that they are of.
"""

import hashlib
import logging
import struct
import time
from dataclasses import replace
from pathlib import Path

from bundlefs.base.errors import ImageError
from bundlefs.base.progress import Wait
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.gzip_points import SPACING, GzipPoints
from bundlefs.image import foreign, forms, unpack
from bundlefs.image.forms import Form
from bundlefs.image.raw import Image
from bundlefs.state.points_file import PointsFile

log = logging.getLogger(__name__)

_MOST_POINTS = 4096
_HEADER = struct.Struct("<32sQQ")
"""SHA-256 of the file's identity, size of the image, bytes of the file that are gzip data."""
_FORMAT = 2

NEAR = SPACING
"""Bytes at the start of an image that are reached without inflating much."""


class GzippedImage:
    """The content of a gzip file. Thread-safe.

    Raises:
        ImageError: the file is damaged, or empty inside.
    """

    def __init__(self, file: Image, kept: Path | None) -> None:
        self._file = file
        self._kept = PointsFile(kept) if kept else None
        known = self._known()
        self.size, self._end, index = known or (*_count(file), None)
        self._saved = known is not None
        spacing = SPACING * ceil_div(self.size, SPACING * _MOST_POINTS)
        self._points = GzipPoints(_Spans(file, self._end), self._damaged, spacing, index, file.path)
        self._closed = False

    def extents(self) -> tuple[Span, ...]:
        """Return one extent over all: where zeros are is not known before they are read."""
        return (Span(0, self.size),)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`.

        Raises:
            ImageError: the file does not unpack as it did.
        """
        data = self._points.read(offset, length)
        if len(data) != length:
            raise self._damaged(f"it ends at {offset + len(data)} bytes")
        return data

    def close(self) -> None:
        """Keep size and points, and let go of the file. Closing it again does nothing."""
        if self._closed:
            return
        self._closed = True
        grown = self._points.grown()
        if self._kept and (grown or not self._saved):
            self._kept.save(_head(self._file, self.size, self._end) + (grown or b""))
        self._points.close()

    def _known(self) -> tuple[int, int, bytes | None] | None:
        data = self._kept.load() if self._kept else None
        if data is None or len(data) < _HEADER.size:
            return None
        tag, size, end = _HEADER.unpack_from(data)
        return (size, end, data[_HEADER.size :] or None) if tag == _tag(self._file) else None

    def _damaged(self, what: str) -> ImageError:
        return ImageError(
            f"image {self._file.path}: the gzip file has {self.size} bytes inside, and cannot be"
            f" unpacked again: {what}"
        )


class _Spans:
    """The file as `GzipPoints` reads it, without what stands behind its gzip data."""

    def __init__(self, file: Image, end: int) -> None:
        self._file = file
        self.size = end

    def read(self, span: Span) -> bytes:
        return self._file.read(span.start, span.length)


def _tag(file: Image) -> bytes:
    """Return a digest of the file's identity but for its device, whose number changes at a boot."""
    about = (_FORMAT, replace(file.identity, device=0))
    return hashlib.sha256(repr(about).encode()).digest()


def _head(file: Image, size: int, end: int) -> bytes:
    return _HEADER.pack(_tag(file), size, end)


def _count(file: Image) -> tuple[int, int]:
    """Unpack a file to see that it is whole; return the size of the image and of the data."""
    log.info("%s is a gzip file of %d bytes: finding its size", file.path, file.size)
    start = time.monotonic()
    data = unpack.Unpacked(file, Form.GZIP)
    size, tail = 0, b""
    try:
        with Wait(file.path, "finding its size", file.size) as wait:
            for piece in data.told_to(wait):
                size += len(piece)
                tail = (tail + piece[-foreign.TAIL_SIZE :])[-foreign.TAIL_SIZE :]
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    if not size:
        raise ImageError(f"image {file.path}: the gzip file is empty inside (0 bytes)")
    # This comes before anything is kept, since the next time nobody sees the end.
    found, form = foreign.find(b"", tail), forms.of(b"", tail)
    if found or form is not Form.RAW:
        raise foreign.inside(file.path, Form.GZIP.value, found.name if found else form.value)
    log.info("%s: %d bytes inside, in %.1f s", file.path, size, time.monotonic() - start)
    return size, data.end
