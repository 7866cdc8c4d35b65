"""The way back in one pass: parts to image, with everything checked that can be.

    parts - read, digest, decrypt - inflate - tar stream - image
            several at a time       likewise  SHA-1        an output

The manifest is untrusted. Nothing is allocated by the sizes that it states, and whatever goes
beyond them ends the pass. The digest of the tar stream is known only at the end, so it decides
whether the result gets its name: who writes an image to a file gives it one only then.

Concurrency: all of these overlap. Parts are read and decrypted on a lane, ahead of the pass
(`decrypting`), segments are inflated on the pool (`inflating`), the SHA-1 of the tar stream is
taken on a lane, and what goes to a file is written on another. Each is at most a few pieces ahead
or behind. One thread, the caller's, puts the segments together and finds the image in them.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.codec.untar import Member, read_member, trailing_ok
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling.decrypting import Decrypting, Progress
from bundlefs.unbundling.inflating import inflated_apart
from bundlefs.unbundling.outputs import Output
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.unseal import Unsealed

_HEAD_LIMIT = 512 << 20
"""Bytes of headers and sparse map: a map of the most extents that are read has less."""

_PADDING_LIMIT = 16 << 20
"""Bytes. Archives end with zeros up to a record, 10 KiB unless somebody wanted larger ones."""
Piece = bytes | memoryview
Write = Callable[[int, memoryview], None]


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass has shown.

    Attributes:
        member: the member that holds the image.
        digest: SHA-1 of the tar stream, in hex.
        tar_size: bytes of the tar stream.
    """

    member: Member
    digest: str
    tar_size: int


def check_parts(parts: PartFiles, workers: Workers, progress: Progress) -> None:
    """Digest all parts, several at a time.

    Raises:
        BundleError: some are not what the manifest says; the text names each of them.
    """

    def complaint(number: int) -> str:
        try:
            parts.check(number)
        except BundleError as error:
            return str(error)
        return ""

    complaints: list[str] = []
    checks = (partial(complaint, number) for number in range(len(parts)))
    for number, found in enumerate(workers.in_order(checks)):
        complaints += [found] if found else []
        progress(parts.span(number).stop, parts.size)
    if complaints:
        raise BundleError("; ".join(complaints))


class Pass:
    """One pass over a bundle from its first part to its last."""

    def __init__(
        self, manifest: BundleManifest, parts: PartFiles, secret: Secret, workers: Workers
    ) -> None:
        self._manifest = manifest
        self._parts = parts
        self._secret = secret
        self._workers = workers
        self._digesting = workers.lane()
        self._writing = workers.lane()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._size = 0

    def run(self, output: Output, progress: Progress) -> Passed:
        """Unbundle into `output`.

        Raises:
            BundleError: something is not what the manifest says; the output holds rubbish.
        """
        # The key is tried on the first and the last part before all others are read.
        unsealed = Unsealed(self._parts, self._secret)
        sealed = Decrypting(self._parts, self._secret, unsealed.size, self._workers)
        plain = inflated_apart(sealed.pieces(progress), self._workers)
        stream = _Pulled(self._digested(plain))
        member = read_member(stream.look)
        self._require_size(member)
        _extract(member, stream, self._behind(output))
        self._digesting.finish()
        self._writing.finish()
        digest = self._sha1.hexdigest()
        if self._manifest.digest not in (None, digest):
            raise BundleError(
                f"the tar stream has SHA-1 {digest}, the manifest says {self._manifest.digest}:"
                " the parts are whole, so the manifest does not belong to them"
            )
        output.finish(member.size)
        return Passed(member, digest, self._size)

    def _behind(self, output: Output) -> Write:
        """Return what hands data to the output: at once if that may wait, else on a lane."""
        if output.waits:
            return output.write
        return lambda offset, data: self._writing.do(partial(output.write, offset, data))

    def _digested(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            self._size += len(piece)
            self._digesting.do(partial(self._sha1.update, piece))
            yield piece

    def _require_size(self, member: Member) -> None:
        if member.size != self._manifest.size:
            raise BundleError(
                f"the image in the bundle has {member.size} bytes, the manifest says"
                f" {self._manifest.size}"
            )


class _Pulled:
    """The tar stream in pieces; its head can be looked at before the pieces are taken."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._head = bytearray()

    def look(self, offset: int, length: int) -> bytes:
        """Return bytes of the head, which `__iter__` yields again."""
        while len(self._head) < offset + length:
            if len(self._head) > _HEAD_LIMIT:
                raise BundleError(f"the head of the tar stream has more than {_HEAD_LIMIT} bytes")
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._head += piece
        return bytes(self._head[offset : offset + length])

    def __iter__(self) -> Iterator[memoryview]:
        yield memoryview(bytes(self._head))
        self._head.clear()
        yield from (memoryview(piece) for piece in self._pieces)


def _extract(member: Member, stream: _Pulled, write: Write) -> None:
    """Hand the image's data to `write` as it comes by; require that nothing else follows it."""
    here = Span(0, 0)
    for piece in stream:
        here = Span(here.stop, here.stop + len(piece))
        for run in member.runs.stored_in(here):
            start = run.stream_offset - here.start
            write(run.image.start, piece[start : start + run.image.length])
        if here.stop > member.end:
            behind = Span(max(here.start, member.end), here.stop)
            _require_padding(piece[behind.start - here.start :], behind.stop - member.end)
    if here.stop < member.end:
        raise BundleError(
            f"the tar stream ends at {here.stop}, and its member would end at {member.end}: the"
            " bundle is cut short"
        )


def _require_padding(piece: memoryview, length: int) -> None:
    """Refuse what is behind the member unless it is zeros: a piece of it, and `length` so far."""
    if not trailing_ok(bytes(piece)):
        raise BundleError("the tar stream has several members; a bundle has one, the image")
    if length > _PADDING_LIMIT:
        raise BundleError(f"the tar stream goes on for more than {_PADDING_LIMIT} bytes of zeros")
