"""A compressed file unpacked once: from then on it is a raw image, in a file without a name.

Its zeros become holes. Nothing is left behind, however the process ends.
"""

import errno
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from bundlefs.base.errors import ImageError
from bundlefs.base.files import open_unnamed, write_all
from bundlefs.base.holes import GRAIN, grains_with_data
from bundlefs.base.progress import Wait
from bundlefs.image import unpack
from bundlefs.image.forms import Form
from bundlefs.image.raw import Image

log = logging.getLogger(__name__)


def spool_folder() -> Path:
    """Return $TMPDIR, or /var/tmp without it: images are large, and /tmp may be in memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108  # no name is made in it


def unpack_file(file: Image, form: Form, folder: Path) -> Image:
    """Unpack a file into `folder` and return the image that came out.

    Raises:
        ImageError: the file is damaged or empty inside, or the folder has no room.
    """
    descriptor = _opened(file, folder)
    try:
        size = _fill(file, form, folder, descriptor)
        os.ftruncate(descriptor, size)
        return Image(file.path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _opened(file: Image, folder: Path) -> int:
    try:
        return open_unnamed(folder)
    except OSError as error:
        raise ImageError(
            f"cannot unpack {file.path} into {folder}: {error.strerror}; set TMPDIR to a folder"
            " with room for the image"
        ) from error


def _fill(file: Image, form: Form, folder: Path, descriptor: int) -> int:
    """Write the content; return its size."""
    log.info(
        "%s (%s, %d bytes) can only be read from its start: unpacking it into a nameless file"
        " in %s",
        file.path,
        form.value,
        file.size,
        folder,
    )
    start = time.monotonic()
    spool = _Spool(descriptor)
    pieces = unpack.Unpacked(file, form)
    try:
        with Wait(file.path, "unpacking", file.size) as wait:
            size = spool.write(pieces.told_to(wait))
    except _SpoolError as error:
        raise ImageError(_why_full(file, form, folder, error)) from error
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    log.info(
        "%s: unpacked in %.1f s: %d bytes, %d of them written, the rest is zeros",
        file.path,
        time.monotonic() - start,
        size,
        spool.written,
    )
    if not size:
        raise ImageError(f"image {file.path}: the {form.value} file is empty inside (0 bytes)")
    return size


def _why_full(file: Image, form: Form, folder: Path, error: "_SpoolError") -> str:
    room = error.reason in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "set TMPDIR to a folder with more room" if room else "set TMPDIR to another folder"
    return (
        f"cannot unpack {file.path} ({form.value}) into {folder}: {os.strerror(error.reason)}"
        f" after {error.done} bytes; {remedy}, or unpack it yourself"
    )


class _SpoolError(Exception):
    """Writing failed, with the errno `reason`, after `done` bytes."""

    def __init__(self, reason: int, done: int) -> None:
        super().__init__(reason, done)
        self.reason = reason
        self.done = done


class _Spool:
    """Writes a stream into a file with holes for its zeros."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0
        self.written = 0

    def write(self, pieces: Iterable[bytes]) -> int:
        """Write all pieces; return how many bytes they had."""
        buffer = bytearray()
        for piece in pieces:
            buffer += piece
            # Whole grains of the file, so that its holes do not depend on how it comes in pieces.
            whole = len(buffer) - len(buffer) % GRAIN
            self._put(memoryview(bytes(buffer[:whole])))
            del buffer[:whole]
        self._put(memoryview(bytes(buffer)))
        return self._size

    def _put(self, data: memoryview) -> None:
        for start, grain in grains_with_data(data):
            try:
                write_all(self._descriptor, grain, self._size + start)
            except OSError as error:
                raise _SpoolError(error.errno or errno.EIO, self.written) from error
            self.written += len(grain)
        self._size += len(data)
