"""A gzip member whose first part was inflated by others: decoded from there to its end.

It is told and refused as if the decoder had gone through the member from its start, in the same
words.
"""

from isal import igzip_lib

from bundlefs.codec.deflate import crc32, gzip_trailer

WINDOW = 32 << 10
"""Bytes of content that a deflate stream may refer to."""

_TRAILER = 8
_WINDOW_BITS = 15
_WRONG_CHECKSUM = "Error -6 Incorrect checksum found"
"""As `IgzipDecompressor` says it, of CRC-32 and size alike."""


class ResumedMember:
    """A decoder, as `members.Decoder`, of the rest of a member.

    Args:
        window: the last bytes of the content so far, `WINDOW` or fewer if there are no more.
        crc: the CRC-32 of all content so far.
        size: its size.
    """

    def __init__(self, window: bytes, crc: int, size: int) -> None:
        self._inner = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, _WINDOW_BITS, window)
        self._crc = crc
        self._size = size
        self._behind = b""
        self.eof = False

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more input."""
        return not self.eof and (self._inner.eof or self._inner.needs_input)

    @property
    def unused_data(self) -> bytes:
        """What stood behind the end of the member in the input."""
        return self._behind[_TRAILER:] if self.eof else b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take input and return at most so many bytes of output.

        Raises:
            igzip_lib.IsalError: the member is damaged.
        """
        if self._inner.eof:
            self._end(data)
            return b""
        found = self._inner.decompress(data, max_length)
        self._crc, self._size = crc32(found, self._crc), self._size + len(found)
        self._end(self._inner.unused_data)
        return found

    def _end(self, data: bytes) -> None:
        self._behind += data
        if not self._inner.eof or len(self._behind) < _TRAILER:
            return
        if self._behind[:_TRAILER] != gzip_trailer(self._crc, self._size)[-_TRAILER:]:
            raise igzip_lib.IsalError(_WRONG_CHECKSUM)  # type: ignore[operator]  # its stub says instance
        self.eof = True
