"""The beginning of a compressed file that can only be read from its start, in memory.

To unpack a large image takes minutes and as much room as it has; whoever only looks gets what is
in its first MiB. Where the image ends within them, that is all of it.
"""

from pathlib import Path

from bundlefs.base.errors import FormError
from bundlefs.base.spans import Span
from bundlefs.image import foreign, forms, unpack
from bundlefs.image.forms import Form
from bundlefs.image.identity import Identity
from bundlefs.image.raw import Image

MOST = 64 << 20


class Beginning:
    """A `Source` of the first bytes of what is in a compressed file. It owns the file.

    Attributes:
        whole: whether that is all of the image.

    Raises:
        FormError: the file is damaged there, or has no disk in it.
    """

    def __init__(self, file: Image, form: Form) -> None:
        self._file = file
        data = bytearray()
        pieces = iter(unpack.Unpacked(file, form))
        for piece in pieces:
            data += piece
            if len(data) >= MOST:
                break
        self.whole = next(pieces, None) is None
        self._data = bytes(data)
        self.size = len(data)
        self.identity: Identity = file.identity
        _require_disk(file.path, form, self._data)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._file.path

    @property
    def bytes_read(self) -> int:
        """0: nothing of it is bundled."""
        return 0

    def extents(self) -> tuple[Span, ...]:
        """Return one extent over all."""
        return (Span(0, self.size),)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`; raises OSError where they are not known."""
        data = self.peek(offset, length)
        if len(data) != length:
            raise OSError("only the beginning of the image was unpacked")
        return data

    def peek(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return self._data[offset : offset + length]

    def require_unchanged(self) -> None:
        """Compare the file with what it was on opening."""
        self._file.require_unchanged()

    def close(self) -> None:
        """Close the file. Closing it again does nothing."""
        self._file.close()


def _require_disk(path: Path, form: Form, data: bytes) -> None:
    if not data:
        raise FormError(f"image {path}: the {form.value} file is empty inside (0 bytes)")
    head = data[: forms.HEAD_SIZE]
    found, inner = foreign.find(head, b""), forms.of(head)
    if found or inner is not Form.RAW:
        raise foreign.inside(path, form.value, found.name if found else inner.value)
