"""From sealed parts to the gzip stream, in order and once: each part is read, digested, decrypted.

A part is read into memory as a whole, and what is decrypted are the bytes that were digested. So
nothing is read twice, and nothing is used that was not proven. A part that is too large for that
is digested first and read again, in stretches that are.

CBC needs nothing but the 16 bytes of ciphertext before, so several parts are under way at a time.
Parts may have any size: where one ends within a block, whoever puts them together decrypts that
block.

Concurrency: parts are read and decrypted on a lane, several at a time; one thread takes what comes
of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from bundlefs.base.buffers import Buffers
from bundlefs.base.ordered import InOrder
from bundlefs.base.spans import Span, split
from bundlefs.base.threads import asking_storage
from bundlefs.base.workers import Workers
from bundlefs.codec import cbc
from bundlefs.codec.cbc import BLOCK
from bundlefs.keys.rsa import Secret
from bundlefs.unbundling.parts import PartFiles

Progress = Callable[[int, int], None]
"""Is told how many bytes of parts are done, and how many all parts have."""

_STRETCH = 10 << 20
"""Bytes that are decrypted together: a part of the usual size, or some of a larger one."""

_UNDER_WAY = 2
_FRONT = 2 * BLOCK
"""Bytes before what is decrypted: what is missing there is up to two blocks."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What is decrypted together: these bytes of the sealed stream, of one part.

    Attributes:
        number: of the part.
        whole: whether they are all of it.
    """

    number: int
    span: Span
    whole: bool


@dataclass(frozen=True, slots=True)
class _Decrypted:
    """A stretch without its ends.

    Attributes:
        head: its ciphertext up to the first block that could be decrypted.
        plain: a buffer with `_FRONT` bytes of room, then that block and all after it.
        stop: where they end in `plain`.
        tail: the ciphertext behind them, and the last block of theirs.
    """

    head: bytes
    plain: memoryview = field(repr=False)
    stop: int
    tail: bytes


class Decrypting:
    """Goes through the sealed stream of `parts` once; the gzip stream in it has `size` bytes."""

    def __init__(self, parts: PartFiles, secret: Secret, size: int, workers: Workers) -> None:
        self._parts = parts
        self._secret = secret
        self._size = size
        self._lane = workers.lane(width=_UNDER_WAY)
        self._sealed = Buffers(_STRETCH, _UNDER_WAY)
        self._plain = Buffers(_FRONT + _STRETCH + BLOCK, 2 * _UNDER_WAY)

    def pieces(self, progress: Progress) -> Iterator[memoryview]:
        """Yield the gzip stream in pieces of at most 10 MiB, each of them writable and not empty.

        Raises:
            BundleError: a part is not what the manifest says.
        """
        done, chain = 0, self._secret.iv
        stretches = list(self._stretches())
        begins = (partial(self._lane.submit, partial(self._decrypt, each)) for each in stretches)
        found = InOrder(begins, lambda: _UNDER_WAY)
        for stretch, decrypted in zip(stretches, found, strict=True):
            piece, chain = self._joined(chain, decrypted)
            del decrypted  # its buffer is used again once nobody has it
            piece = piece[: self._size - done]
            done += len(piece)
            if piece:
                yield piece
            progress(stretch.span.stop, self._parts.size)

    def _stretches(self) -> Iterator[_Stretch]:
        for number in range(len(self._parts)):
            part = self._parts.span(number)
            if part.length <= _STRETCH:
                yield _Stretch(number, part, whole=True)
                continue
            for at, span in split(part.shift(-part.start), _STRETCH):
                yield _Stretch(number, span.shift(part.start + at * _STRETCH), whole=False)

    def _decrypt(self, stretch: _Stretch) -> _Decrypted:
        """Read a stretch, and decrypt what can be without the one before it."""
        sealed = self._sealed.take()[: stretch.span.length]
        with asking_storage():
            if stretch.whole:
                self._parts.take(stretch.number, sealed)
            else:
                sealed[:] = self._parts.read(stretch.span)
        first = -stretch.span.start % BLOCK + BLOCK
        length = (len(sealed) - first) // BLOCK * BLOCK
        if length <= 0:
            return _Decrypted(bytes(sealed), self._plain.take(), _FRONT, b"")
        plain = self._plain.take()
        stop = first + length
        chain = sealed[first - BLOCK : first]
        cbc.decrypt_into(self._secret.key, chain, sealed[first:stop], plain[_FRONT:])
        return _Decrypted(
            bytes(sealed[:first]), plain, _FRONT + length, bytes(sealed[stop - BLOCK :])
        )

    def _joined(self, before: bytes, found: _Decrypted) -> tuple[memoryview, bytes]:
        """Decrypt what is missing at the head of a stretch.

        Args:
            before: the last whole block of ciphertext before it, and what is behind that.
            found: the stretch.

        Returns:
            All that can be decrypted by now, and the same as `before` for the next stretch.
        """
        missing = before + found.head
        length = len(missing) // BLOCK * BLOCK - BLOCK
        chain, sealed = missing[:BLOCK], missing[BLOCK : BLOCK + length]
        start = _FRONT - length
        found.plain[start:_FRONT] = cbc.decrypt(self._secret.key, chain, sealed)
        return found.plain[start : found.stop], found.tail or missing[length:]
