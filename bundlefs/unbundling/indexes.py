"""The index of a bundle that is there, by which its blocks are found without a pass.

That of its state is taken if the bundle was made here, else a file `PREFIX.index` beside the parts
or beside the manifest. Such a file may be anything: it is taken only if it was made with the
bundle's key for these very parts. What is wrong with it is logged, and it costs time alone: every
byte that is read by it comes from parts that are digested.
"""

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.errors import BundleError, StateError
from bundlefs.base.files import read_fully
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.state import file as statefile
from bundlefs.state.index import Index
from bundlefs.state.places import default_folder
from bundlefs.state.sealed_index import BlockTable, index_name, largest_index, open_index
from bundlefs.state.trust import opened

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """A file that may be the index of a bundle, and its bytes."""

    path: Path
    data: bytes

    def table(self, manifest: BundleManifest, secret: Secret, sealed_size: int) -> BlockTable:
        """Return what it says of a bundle whose parts have `sealed_size` bytes together.

        Raises:
            BundleError: it is damaged, or of another bundle.
        """
        digests = (entry.digest for entry in manifest.parts)
        try:
            return open_index(self.data, secret, digests, sealed_size)
        except ValueError as error:
            raise BundleError(f"index {self.path}: {error}") from error


def find_file(
    manifest: BundleManifest, sealed_size: int, folders: Iterable[Path]
) -> FoundIndex | None:
    """Return the index in the first of these folders that has one; None if none has.

    Args:
        manifest: of the bundle.
        sealed_size: of all parts together, in bytes.
        folders: where it may be.

    Raises:
        BundleError: it cannot be read, or is too large.
    """
    for folder in folders:
        path = folder / index_name(manifest.file_stem)
        try:
            if (data := _read(path, largest_index(sealed_size))) is not None:
                return FoundIndex(path, data)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BundleError(f"index {path}: {error.strerror}") from error
    return None


def _read(path: Path, largest: int) -> bytes | None:
    """Return the bytes of a file, or None if something else has this name."""
    with opened(path) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > largest:
            raise BundleError(
                f"index {path}: it has {status.st_size} bytes, and that of this bundle has not"
                f" {largest}"
            )
        return read_fully(descriptor, 0, status.st_size)


def table_beside(
    manifest: BundleManifest, secret: Secret, sealed_size: int, folders: Iterable[Path]
) -> BlockTable | None:
    """Return what the index in one of these folders says; None, and a warning, if it is no good."""
    try:
        found = find_file(manifest, sealed_size, folders)
        return found.table(manifest, secret, sealed_size) if found else None
    except BundleError as error:
        log.warning("%s; the bundle is read without it, which takes a pass over its parts", error)
    return None


def index_of_state(manifest: BundleManifest) -> Index | None:
    """Return the index of this very bundle, if its state is at hand."""
    digests = tuple(entry.digest for entry in manifest.parts)
    for path in sorted(default_folder().glob("*.state")):
        try:
            contents = statefile.read(path)
        except StateError:
            continue
        if contents and contents.index.totals and contents.index.part_digests == digests:
            index = Index(contents.secret.iv)
            index.load(contents.index)
            return index
    return None
