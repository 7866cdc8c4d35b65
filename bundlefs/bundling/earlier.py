"""What an earlier bundle has left in a folder that a bundle is written to.

Where there is a manifest, its parts are whole: so that of another bundle goes before the first of
its parts is replaced, whichever region it was made for, and so does its index.
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bundlefs.base.errors import BundleError
from bundlefs.manifest.read import BundleManifest, read_manifest
from bundlefs.state.sealed_index import HEAD, belongs_to, index_name, is_index

log = logging.getLogger(__name__)


def remove_manifests(
    folder: Path, prefix: str, names: Collection[str], digests: Sequence[str]
) -> None:
    """Remove the manifests that are about to be untrue, or to be written anew; an index likewise.

    Args:
        folder: where the bundle is going to be.
        prefix: of its files.
        names: of the manifests that are written in the end.
        digests: of the parts of the bundle that are whole already, in their order. A manifest
            that was made of it for another region has the same ones, and stays.

    Raises:
        OSError: one cannot be removed.
    """
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for path, manifest in _manifests(folder, prefix):
        listed = [part.digest for part in manifest.parts]
        if not digests or listed[: len(digests)] != list(digests):
            log.warning("%s is removed: its parts are replaced by those of another bundle", path)
            path.unlink(missing_ok=True)
    _remove_index(folder / index_name(prefix), digests)


def _remove_index(path: Path, digests: Sequence[str]) -> None:
    """Remove an index, unless it is of the bundle with these parts; it is made when all are."""
    if not path.is_file():  # a pipe would wait for a writer
        return
    with path.open("rb") as file:
        head = file.read(HEAD)
    if is_index(head) and not belongs_to(head, digests):
        log.warning("%s is removed: it is the index of another bundle", path)
        path.unlink(missing_ok=True)


def _manifests(folder: Path, prefix: str) -> Iterator[tuple[Path, BundleManifest]]:
    """Return the manifests whose parts have this prefix; what is no manifest is not ours."""
    ours = re.compile(rf"{re.escape(prefix)}\.part\.[0-9]+", re.DOTALL)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(prefix) and path.name.endswith(".manifest.xml") and path.is_file():
            with suppress(BundleError):
                manifest = read_manifest(path)
                if any(ours.fullmatch(part.filename) for part in manifest.parts):
                    yield path, manifest
