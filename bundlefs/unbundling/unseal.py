"""From sealed parts to the gzip stream and the tar stream: decryption and inflation.

`Unsealed` decrypts any span: CBC needs only the 16 bytes before it. `inflated` goes through the
gzip stream once, from its start, in bounded pieces: the sizes that an untrusted manifest states
are limits here, and nothing is ever allocated by them.
"""

from collections.abc import Iterator

from isal import igzip_lib

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec import cbc, members
from bundlefs.codec.members import PIECE, Decoder
from bundlefs.keys.rsa import Secret
from bundlefs.unbundling.parts import PartFiles

_WRONG_KEY = "the key is not this bundle's, or the last part is cut short"
_GZIP_MAGIC = b"\x1f\x8b"


class Unsealed:
    """The gzip stream of a bundle, decrypted, by offset. Thread-safe.

    Args:
        parts: the sealed stream.
        secret: of the bundle.
        size: bytes of the gzip stream, where something tells that is authentic; else the last part
            is read for it.

    Raises:
        BundleError: the sealed stream cannot be AES-CBC, or the key is another's.
    """

    def __init__(self, parts: PartFiles, secret: Secret, size: int | None = None) -> None:
        self._parts = parts
        self._secret = secret
        if parts.size % cbc.BLOCK or not parts.size:
            for number in range(len(parts)):
                parts.check(number)  # so that the error names the part, where one is to blame
            raise BundleError(
                f"the parts have {parts.size} bytes together, which is no multiple of 16, so they"
                " are not whole: bytes are missing"
            )
        self.size = self._size() if size is None else size
        if self.read(Span(0, min(2, self.size))) != _GZIP_MAGIC:
            raise BundleError(f"what it decrypts to is not gzip: {_WRONG_KEY}")

    def _size(self) -> int:
        last = self._decrypted(Span(self._parts.size - cbc.BLOCK, self._parts.size))
        try:
            return self._parts.size - cbc.padding(last)
        except ValueError as error:
            raise BundleError(f"the end does not decrypt: {_WRONG_KEY}") from error

    def read(self, span: Span) -> bytes:
        """Return these bytes of the gzip stream."""
        first, behind = span.start // cbc.BLOCK, ceil_div(span.stop, cbc.BLOCK)
        whole = Span(first * cbc.BLOCK, behind * cbc.BLOCK)
        skip = span.start - whole.start
        return self._decrypted(whole)[skip : skip + span.length]

    def _decrypted(self, whole: Span) -> bytes:
        """Decrypt whole blocks: each needs the block before it, and the first one the IV."""
        if not whole.start:
            return cbc.decrypt(self._secret.key, self._secret.iv, self._parts.read(whole))
        sealed = self._parts.read(Span(whole.start - cbc.BLOCK, whole.stop))
        return cbc.decrypt(self._secret.key, sealed[: cbc.BLOCK], sealed[cbc.BLOCK :])


def inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate a gzip stream, members joined, in pieces of at most 1 MiB.

    Raises:
        BundleError: it is damaged, or ends too early.
    """
    return members.inflated(GzipPieces(pieces), members.gzip_decoder)


class GzipPieces:
    """The gzip stream in pieces. Nothing may stand between or behind its members."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._rest: bytes | None = None

    def next_member(self) -> bool:
        """Return whether anything is left."""
        first = self._rest is None
        self._rest = self._rest or next(self._pieces, b"")
        return first or bool(self._rest)

    def take(self) -> bytes:
        """Return the next bytes."""
        data, self._rest = self._rest or next(self._pieces, b""), b""
        if not data:
            raise BundleError("the gzip stream ends too early: the bundle is cut short")
        return data

    def give_back(self, data: bytes) -> None:
        """Take back what stood behind a member."""
        self._rest = data

    def decode(self, decoder: Decoder, data: bytes) -> bytes:
        """Decode; an error says that the stream is damaged."""
        try:
            return decoder.decompress(data, PIECE)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance
            raise BundleError(f"the gzip stream is damaged: {error}") from error
