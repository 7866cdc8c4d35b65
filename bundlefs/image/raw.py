"""A raw image: reads at an offset, where its data lies, and proof that it is still the same.

Nothing here knows what the bytes are for. Other forms of images are read through this as well:
it is the file that they are kept in.

Concurrency: any number of threads may call `read` and `extents` at once. Every read names its
offset, so there is no seek pointer to share. Only the count of bytes read is mutable, and a lock
guards it. Whoever opened the image closes it, after the last read.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bundlefs.base.errors import ImageChangedError, ImageError
from bundlefs.base.files import read_fully
from bundlefs.base.spans import Span
from bundlefs.base.storage import Storage
from bundlefs.image.identity import Identity, settle


class Image:
    """A raw image, open to read. A context manager that closes it.

    Attributes:
        path: absolute.
        identity: as it was on opening; every read compares with it.
    """

    def __init__(self, path: Path, descriptor: int, place: Path | None = None) -> None:
        self.path = path
        self.identity = Identity.of(descriptor)
        self._descriptor = descriptor
        # Where another file that takes its place would be found; None if that is not known.
        self._place = place
        self._storage = Storage.of(path)
        self._bytes_read = 0
        self._count_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an image to read.

        Raises:
            ImageError: there is none, it may not be read, it is empty, or it is neither a
                regular file nor a block device.
        """
        absolute = Path(path).absolute()
        try:
            # Before opening: to open a FIFO would wait for a writer.
            with Storage.of(absolute).asked():
                _require_usable_kind(absolute, absolute.stat().st_mode)
                place = _place(absolute)
                image = cls(absolute, os.open(absolute, os.O_RDONLY | os.O_CLOEXEC), place)
        except OSError as error:
            raise ImageError(_why_not_opened(absolute, error)) from error
        image._require_content()
        settle(image.identity)
        return image

    @classmethod
    def adopt(cls, name: Path, descriptor: int) -> Self:
        """Take a file that nobody else can open; `name` is for people, the descriptor is copied.

        Raises:
            ImageError: it is empty.
        """
        image = cls(name, os.dup(descriptor))
        image._require_content()
        return image

    def _require_content(self) -> None:
        if not self.size:
            self.close()
            raise ImageError(f"image {self.path} is empty (0 bytes): give one with a file system")

    @property
    def size(self) -> int:
        """Bytes, 1 or more."""
        return self.identity.size

    @property
    def bytes_read(self) -> int:
        """How many bytes all reads together have returned."""
        return self._bytes_read

    def extents(self) -> tuple[Span, ...]:
        """Return where the image has data: sorted, disjoint, none empty or touching the next.

        Everything else reads as zeros. For a block device it is one extent over all; for a file
        system that keeps no holes, Linux itself answers so [lseek(2)]. What a file system calls a
        hole may differ from one call to the next though no byte does (allocated but unwritten
        space), so ask only once for one bundle.

        Raises:
            ImageChangedError: the image is not what was opened.
            OSError: the file system fails.
        """
        if self.identity.is_block_device:
            return (Span(0, self.size),)
        found = tuple(self._data_spans())
        self._require_unchanged([])
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`, which must lie within the image.

        Raises:
            ImageChangedError: the image is not what was opened, or ends too early.
            OSError: the read failed; it is the device's or the file system's own error.
        """
        with self._storage.asked():
            data = read_fully(self._descriptor, offset, length)
        missing = length - len(data)
        # After the read, so that no change can slip in between.
        self._require_unchanged(
            [f"{missing} bytes are missing at offset {offset + len(data)}"] if missing else [],
            f", found on reading at offset {offset}",
        )
        with self._count_lock:
            self._bytes_read += length
        return data

    def peek(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`, which are not for the bundle and not counted.

        Raises:
            OSError: the read failed.
        """
        return os.pread(self._descriptor, length, offset)

    def fileno(self) -> int:
        """Return the descriptor, for a process that is to read the very same file."""
        return self._descriptor

    def require_unchanged(self) -> None:
        """Compare the identity with what it was on opening, and see what its path leads to now.

        Raises:
            ImageChangedError: the image is not what was opened, or another file is in its place.
        """
        with self._storage.asked():
            self._require_unchanged(["another file is in its place"] if self._is_replaced() else [])

    def _is_replaced(self) -> bool:
        """Return whether the path leads to another file, which the open one need not show.

        A path that leads nowhere tells nothing: a file whose last name was removed has another
        ctime, and a folder above it that was renamed, or may not be searched now, does no harm.
        """
        if self._place is None or self.identity.is_block_device:
            return False
        try:
            now = self._place.stat()
        except OSError:
            return False
        return not os.path.samestat(now, os.fstat(self._descriptor))

    def close(self) -> None:
        """Close the image. Closing it again does nothing, and a later read fails with EBADF."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Some file systems report a failed transfer only now, but each read had its own error.
            with suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _data_spans(self) -> Iterator[Span]:
        stop = 0
        while stop < self.size:
            try:
                start = os.lseek(self._descriptor, stop, os.SEEK_DATA)
                stop = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data from here on
                    return
                raise
            yield Span(start, stop)

    def _require_unchanged(self, findings: list[str], where: str = "") -> None:
        findings += self.identity.changes(Identity.of(self._descriptor))
        if findings:
            raise ImageChangedError(
                f"image {self.path} was changed while in use: {', '.join(findings)}{where};"
                f" {_what_to_do(findings)}"
            )


def _require_usable_kind(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "of an unknown kind")
    raise ImageError(f"image {path} is {kind}: give a regular file or a block device")


def _place(path: Path) -> Path:
    """Return the path to watch: a number in /proc may soon be that of another file."""
    by_number = str(path).startswith(("/proc/", "/dev/fd/", "/dev/std"))
    return Path(os.path.realpath(path)) if by_number else path


def _why_not_opened(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no image {path}: check the path"
    if isinstance(error, PermissionError):
        return f"no permission to read image {path}: run as a user who may, or change its mode"
    return f"cannot open image {path}: {error.strerror}; check the path and its file system"


def _what_to_do(findings: list[str]) -> str:
    advice = "unmount, and mount it again to bundle it as it is now"
    if all(finding.startswith(("mtime", "ctime")) for finding in findings):
        # A cluster answers with the times of one copy or of another [GlusterFS without ctime].
        advice += (
            "; if nobody has touched it, its storage does not keep times steady (GlusterFS, some"
            " network file systems), and that will not help: copy it to a local disk, or export"
            " it as a block device"
        )
    return advice
