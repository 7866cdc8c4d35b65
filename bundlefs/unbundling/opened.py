"""A bundle that is opened to read its image at any offset.

Concurrency: any thread may read. Whoever opened the bundle closes it, after the last read.
"""

import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bundlefs.base.checks import whole
from bundlefs.base.errors import (
    BundleError,
    ClosedError,
)
from bundlefs.base.progress import Wait
from bundlefs.base.spans import Span, joined
from bundlefs.codec.untar import Member, Run, read_member
from bundlefs.keys.rsa import Secret
from bundlefs.keys.types import Passphrase
from bundlefs.manifest.read import BundleManifest, find_manifest, read_manifest
from bundlefs.state.places import default_folder
from bundlefs.state.points_file import PointsFile
from bundlefs.state.sealed_index import parts_digest
from bundlefs.unbundling.indexes import index_of_state, table_beside
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.plain import Plain, PlainByBlocks, PlainByPoints
from bundlefs.unbundling.unlock import Keys, Signature, check_signature, unlock
from bundlefs.unbundling.unseal import Unsealed

log = logging.getLogger(__name__)

_READ_THREADS = 64


class OpenedBundle:
    """The image in a bundle. It owns `parts`, and closes them.

    Args:
        manifest: of the bundle.
        parts: of the bundle.
        secret: of the bundle.
        beside: the folder of the manifest, where the index may be if it is not beside the parts.

    Raises:
        BundleError: the bundle is not what its manifest says.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        parts: PartFiles,
        secret: Secret,
        beside: Path | None = None,
    ) -> None:
        self.name = f"{manifest.file_stem}.img"
        self._parts = parts
        self.access, self._plain = _plain(manifest, parts, secret, beside)
        self._member: Member = read_member(self._plain.read)
        if self._member.size != manifest.size:
            raise BundleError(
                f"the image in the bundle has {self._member.size} bytes, the manifest says"
                f" {manifest.size}"
            )
        self.size = manifest.size
        self._closed = False

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the image, fewer than `length` only at its end.

        Raises:
            UsageError: `offset` or `length` is negative, or no whole number.
            BundleChangedError: a part was changed while it was open; it stays refused.
            BundleError: a part is damaged; the text names it.
            ClosedError: the bundle was closed.
        """
        offset, length = whole("offset", offset), whole("length", length)
        span = Span(offset, offset + length).clip(Span(0, self.size))
        if self._closed:
            raise ClosedError("the bundle was closed")
        pieces = []
        for piece in self._member.pieces(span):
            if isinstance(piece, Run):
                data = self._plain.read(piece.stream_offset, piece.image.length)
                if len(data) != piece.image.length:
                    raise BundleError("the bundle ends before its image does: it is cut short")
                pieces.append(data)
            else:
                pieces.append(bytes(piece.length))
        return joined(pieces)

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes as `read` does, or none if that would take a pass over the bundle."""
        pieces = self._member.pieces(Span(offset, offset + length).clip(Span(0, self.size)))
        runs = (piece for piece in pieces if isinstance(piece, Run))
        if not all(self._plain.is_near(run.stream_offset + run.image.length) for run in runs):
            return b""
        return self.read(offset, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def wait(self) -> Wait | None:
        """What a read waits for that takes long, if one does."""
        return self._plain.wait

    @property
    def sealed_size(self) -> int:
        """Size of all parts together."""
        return self._parts.size

    def close(self) -> None:
        """Let go of the image and of the parts. Closing it again does nothing."""
        if not self._closed:
            self._closed = True
            self._plain.close()
            self._parts.close()


def open_bundle(
    manifest: str | os.PathLike[str],
    user_key: str | os.PathLike[str],
    *,
    parts: str | os.PathLike[str] | None = None,
    passphrase: Passphrase | None = None,
    ignore_signature: bool = False,
) -> OpenedBundle:
    """Open a bundle to read its image at any offset. The result is a context manager.

    A manifest without a signature is accepted, with a warning in the log.

    Args:
        manifest: path of a manifest, or of a folder with one.
        user_key: path of the private key of the user that it names.
        parts: folder of the parts; the manifest's by default.
        passphrase: returns the passphrase; called only if the key is encrypted.
        ignore_signature: open the bundle even if this key did not sign it: it may be anybody's.

    Raises:
        BundleError: the bundle is damaged or missing, or this key does not open it.
        KeyFileError: the key file is of no use.
        SignatureError: this key did not sign it, or it was changed since.
        UsageError: the folder has several manifests.
    """
    path = find_manifest(Path(manifest))
    read = read_manifest(path)
    keys = Keys.load(Path(user_key), None, None, passphrase)
    secret = unlock(read, keys, ignore_signature=ignore_signature)
    if (found := check_signature(read, keys)) is not Signature.HOLDS:
        log.warning("%s: signature: %s", path, found.value)
    folder = Path(parts) if parts is not None else path.absolute().parent
    with ExitStack() as stack:
        held = stack.enter_context(PartFiles(read, folder))
        bundle = OpenedBundle(read, held, secret, path.absolute().parent)
        stack.pop_all()
    return bundle


def _plain(
    manifest: BundleManifest, parts: PartFiles, secret: Secret, beside: Path | None
) -> tuple[str, Plain]:
    """Return how the tar stream is reached, in words, and the tar stream."""
    if index := index_of_state(manifest):
        return "by the index of its state", PlainByBlocks(Unsealed(parts, secret), index)
    folders = dict.fromkeys((parts.folder, beside or parts.folder))
    if table := table_beside(manifest, secret, parts.size, folders):
        unsealed = Unsealed(parts, secret, table.gzip_size)
        return "by the index beside it", PlainByBlocks(unsealed, table)
    points = _points_file(manifest) if parts.checked else None
    return "by access points", PlainByPoints(
        Unsealed(parts, secret), points, f"{manifest.file_stem}.img"
    )


def _points_file(manifest: BundleManifest) -> PointsFile:
    """Return the file for a bundle's access points, named by its content.

    Two bundles with the same parts have the same access points. That holds only for parts whose
    digests are checked: points of a damaged part would lead to wrong bytes once it is whole.
    """
    of = parts_digest(entry.digest for entry in manifest.parts)
    return PointsFile(default_folder() / f"parts-{of.hex()[:32]}.points", of)
