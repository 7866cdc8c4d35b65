"""The way back in one pass: parts to image, everything checked that can be.

    parts - digest each - decrypt - inflate - tar stream - image
            (parallel)    (one pass)          SHA-1       sparse file, pipe or nothing

The manifest is untrusted. Nothing is allocated by its sizes; what goes beyond
them ends the pass. Digests that come late (the tar stream's) decide whether the
result gets its name: an image is written to a file without one, where there can be such.

Concurrency: parts are digested on the pool, ahead of the pass; SHA-1 of the tar
stream runs on a lane of its own, at most a few pieces behind.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self

from bundlefs.base.errors import BundleError
from bundlefs.base.files import Draft, umask, write_all
from bundlefs.base.spans import Span
from bundlefs.base.workers import Workers
from bundlefs.codec.untar import Member, read_member, trailing_ok
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.unseal import Unsealed, inflated

_BEHIND = 8
_LONGEST_NAME = 200
"""Bytes; a file name has 255 at most, and more comes behind it."""
_HEAD_LIMIT = 512 << 20
_PADDING_LIMIT = 16 << 20
"""Archives end with zeros up to a record, 10 KiB unless somebody wanted larger ones."""

Progress = Callable[[int, int], None]
"""Takes the bytes of parts that are done, and of all parts."""


class Sink(Protocol):
    """Where an image goes: its data in order, then its size. What is not written is zeros."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take data of the image; offsets only grow."""

    def finish(self, size: int) -> None:
        """All of it was written; the image has `size` bytes."""


class Nowhere:
    """A sink for who only wants to know."""

    def write(self, offset: int, data: memoryview) -> None:
        """Drop it."""

    def finish(self, size: int) -> None:
        """Nothing to do."""


class SparseFile:
    """A sink that leaves holes where nothing is written, and with `sparse` where zeros are."""

    _ZEROS = bytes(64 << 10)

    def __init__(self, file: int, *, sparse: bool) -> None:
        self._file = file
        self._sparse = sparse

    def write(self, offset: int, data: memoryview) -> None:
        """Write at an offset."""
        if not self._sparse:
            write_all(self._file, data, offset)
            return
        step = len(self._ZEROS)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if piece != self._ZEROS[: len(piece)]:
                write_all(self._file, piece, offset + start)

    def finish(self, size: int) -> None:
        """Give the file its size, and have it on the disk."""
        os.ftruncate(self._file, size)
        os.fsync(self._file)


class Pipe:
    """A sink that writes one byte after the other, holes as zeros, to a file descriptor.

    Nothing is buffered: what could not be written must not come up again when Python ends.
    """

    _ZEROS = memoryview(bytes(1 << 20))

    def __init__(self, file: int) -> None:
        self._file = file
        self._position = 0

    def write(self, offset: int, data: memoryview) -> None:
        """Write after the zeros that are due."""
        self._fill(offset)
        self._write(data)

    def _fill(self, stop: int) -> None:
        while self._position < stop:
            self._write(self._ZEROS[: stop - self._position])

    def _write(self, data: memoryview) -> None:
        while data:
            done = os.write(self._file, data)
            self._position, data = self._position + done, data[done:]

    def finish(self, size: int) -> None:
        """Write the zeros at the end."""
        self._fill(size)


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass has shown: the member that holds the image, and the SHA-1 of the tar stream."""

    member: Member
    digest: str
    tar_size: int


def check_parts(parts: PartFiles, workers: Workers, progress: Progress) -> None:
    """Digest all parts, in parallel.

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
        self._digesting = workers.lane(_BEHIND)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._size = 0

    def run(self, sink: Sink, progress: Progress) -> Passed:
        """Unbundle into `sink`.

        Raises:
            BundleError: something is not what the manifest says; the sink holds rubbish.
        """
        stream = _Pulled(self._digested(inflated(self._gzip(progress))))
        member = read_member(stream.look)
        self._require_size(member)
        _extract(member, stream, sink)
        self._digesting.finish()
        digest = self._sha1.hexdigest()
        if self._manifest.digest not in (None, digest):
            raise BundleError(
                f"the tar stream has SHA-1 {digest}, the manifest says {self._manifest.digest}:"
                " the parts are whole, so the manifest does not belong to them"
            )
        sink.finish(member.size)
        return Passed(member, digest, self._size)

    def _gzip(self, progress: Progress) -> Iterator[bytes]:
        checks = (partial(self._parts.check, number) for number in range(len(self._parts)))
        checked = self._workers.in_order(checks)
        # The key is tried on the first and the last part before all others are digested.
        unsealed = Unsealed(self._parts, self._secret)
        for number, _ in enumerate(checked):
            yield from unsealed.pieces(self._parts.span(number))
            progress(self._parts.span(number).stop, self._parts.size)

    def _digested(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
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
    """A stream of pieces, whose head can be looked at before it is gone through."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._head = bytearray()

    def look(self, offset: int, length: int) -> bytes:
        """Give bytes of the head; it is kept for `__iter__`."""
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


def _extract(member: Member, stream: _Pulled, sink: Sink) -> None:
    """Hand every run of the member to the sink as it comes by, and look at what follows it."""
    runs = iter(member.runs)
    run = next(runs, None)
    position = 0
    for piece in stream:
        here = Span(position, position + len(piece))
        position = here.stop
        while run is not None:
            sealed = Span(run.stream_offset, run.stream_offset + run.image.length)
            wanted = sealed.clip(here)
            if wanted.length:
                inside = wanted.shift(-here.start)
                offset = run.image.start + wanted.start - sealed.start
                sink.write(offset, piece[inside.start : inside.stop])
            if sealed.stop > here.stop:
                break
            run = next(runs, None)
        _require_padding(piece[max(0, member.end - here.start) :], here.stop - member.end)
    if position < member.end:
        raise BundleError(
            f"the tar stream ends at {position}, and its member would end at {member.end}: the"
            " bundle is cut short"
        )


def _require_padding(rest: memoryview, length: int) -> None:
    if not trailing_ok(bytes(rest)):
        raise BundleError("the tar stream has several members; a bundle has one, the image")
    if length > _PADDING_LIMIT:
        raise BundleError(f"the tar stream goes on for more than {_PADDING_LIMIT} bytes of zeros")


class NewFile:
    """A file that gets its name only if all went well. A context manager; best within `written`.

    Attributes:
        file: its descriptor.

    Raises:
        BundleError: the name is taken, by a plain file and `force` is not given, or by another.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        if path.exists() and not force:
            raise BundleError(f"{path} exists; --force overwrites it")
        if path.exists() and not path.is_file():
            raise BundleError(f"{path} is not a plain file; name another with -o")
        self._path = path
        self._force = force
        self._draft = Draft(path)
        self.file = self._draft.file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._draft:
            if kind is None:
                os.fchmod(self.file, 0o666 & ~umask())
                self._publish()

    def _publish(self) -> None:
        try:
            self._draft.publish(replace=self._force)
        except FileExistsError as error:
            raise BundleError(f"{self._path} exists; --force overwrites it") from error


@contextmanager
def written(what: object) -> Iterator[None]:
    """Make what the system says against a write an error that names what was to be written."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot write {what}: {error.strerror}") from error


def file_name(manifest: BundleManifest) -> str:
    """Give the name of the image for use in file names: its own if it is fit for that.

    It is free text, and a path in it must not lead anywhere.
    """
    name = manifest.name
    fit = "/" not in name and not name.startswith(".") and len(name.encode()) <= _LONGEST_NAME
    return name if fit else "image"
