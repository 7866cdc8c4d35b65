"""From sealed parts to the gzip stream and the tar stream: decryption and inflation.

`Sealed` decrypts any span: CBC needs only the 16 bytes before. `inflated` goes
through the gzip stream once, from its start, in bounded pieces: what is said of
sizes by an untrusted manifest is a limit here, never an allocation.
"""

from collections.abc import Iterator

from isal import igzip_lib

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span, split
from bundlefs.codec import cbc
from bundlefs.keys.rsa import Secret
from bundlefs.unbundling.parts import PartFiles

PIECE = 1 << 20
_WRONG_KEY = "the key is not this bundle's, or the last part is cut short"
_GZIP_MAGIC = b"\x1f\x8b"


class Unsealed:
    """The gzip stream of a bundle, decrypted, by offset. Thread-safe.

    Raises:
        BundleError: the sealed stream cannot be AES-CBC, or the key is another's.
    """

    def __init__(self, parts: PartFiles, secret: Secret) -> None:
        self._parts = parts
        self._secret = secret
        if parts.size % cbc.BLOCK or not parts.size:
            for number in range(len(parts)):
                parts.check(number)  # so that the error names the part, where one is to blame
            raise BundleError(
                f"the parts have {parts.size} bytes together, which is no multiple of 16, so they"
                " are not whole: bytes are missing"
            )
        last = self._decrypted(Span(parts.size - cbc.BLOCK, parts.size))
        try:
            self.size = parts.size - cbc.padding(last)
        except ValueError as error:
            raise BundleError(f"the end does not decrypt: {_WRONG_KEY}") from error
        if self.read(Span(0, min(2, self.size))) != _GZIP_MAGIC:
            raise BundleError(f"what it decrypts to is not gzip: {_WRONG_KEY}")

    def read(self, span: Span) -> bytes:
        """Give these bytes of the gzip stream."""
        stop = -(-span.stop // cbc.BLOCK) * cbc.BLOCK
        whole = Span(span.start // cbc.BLOCK * cbc.BLOCK, stop)
        skip = span.start - whole.start
        return self._decrypted(whole)[skip : skip + span.length]

    def _decrypted(self, whole: Span) -> bytes:
        if not whole.start:
            return cbc.decrypt(self._secret.key, self._secret.iv, self._parts.read(whole))
        sealed = self._parts.read(Span(whole.start - cbc.BLOCK, whole.stop))
        return cbc.decrypt(self._secret.key, sealed[: cbc.BLOCK], sealed[cbc.BLOCK :])

    def pieces(self, part: Span) -> Iterator[bytes]:
        """Give the bytes of the gzip stream that are sealed in these of the sealed stream."""
        whole = part.clip(Span(0, self.size))
        for number, span in split(whole, PIECE):
            yield self.read(span.shift(number * PIECE))


def inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate a gzip stream, members joined, in pieces of at most 1 MiB.

    Raises:
        BundleError: it is damaged, or ends too early.
    """
    decoder = _decoder()
    for piece in pieces:
        rest = piece
        while True:
            if decoder.eof:
                if not rest:
                    break
                decoder = _decoder()
            yield _decoded(decoder, rest)
            rest = decoder.unused_data if decoder.eof else b""
            if not rest and (decoder.eof or decoder.needs_input):
                break
    if not decoder.eof:
        raise BundleError("the gzip stream ends too early: the bundle is cut short")


def _decoder() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _decoded(decoder: igzip_lib.IgzipDecompressor, data: bytes) -> bytes:
    try:
        return decoder.decompress(data, PIECE)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance
        raise BundleError(f"the gzip stream is damaged: {error}") from error
