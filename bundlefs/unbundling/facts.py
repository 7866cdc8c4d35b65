"""What a bundle is, for whoever looks: what its manifest says, and what there is of its parts.

Nothing is written or kept, and no secret is in what is returned. Without keys nothing is
decrypted; with them, only the head of the tar stream.
"""

import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.errors import BundleError
from bundlefs.codec.tar_format import BLOCK, SPARSE
from bundlefs.codec.untar import read_member
from bundlefs.manifest.bundler import bundler_of
from bundlefs.manifest.elements import LONGEST_MANIFEST
from bundlefs.manifest.read import BundleManifest, read_manifest
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.plain import PlainByPoints
from bundlefs.unbundling.unlock import Keys, Signature, check_signature, unlock
from bundlefs.unbundling.unseal import Unsealed

_USUAL_PART = 10 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a bundle as they lie in a folder.

    Attributes:
        count: how many the manifest names.
        present: how many are there.
        missing: names of those that are not.
        odd: (name, bytes) of those whose size is another than the others'.
        size: bytes of those that are there.
        part_size: bytes of most of them.
    """

    count: int
    present: int
    missing: tuple[str, ...]
    odd: tuple[tuple[str, int], ...]
    size: int
    part_size: int | None


@dataclass(frozen=True, slots=True)
class TarForm:
    """How the image stands in the tar stream: which kind of tar, its member, bytes of data."""

    kind: str
    member: str
    sparse: bool
    data: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle; `tar` is None, and `why` says why, where it was not opened."""

    path: Path
    manifest: BundleManifest
    made_by: tuple[str, ...]
    signature: Signature
    parts: Parts
    tar: TarForm | None
    why: str


def look(path: Path, folder: Path, keys: Keys) -> Bundle:
    """Look at the bundle of a manifest, whose parts are in a folder.

    Raises:
        BundleError: the manifest cannot be read, or is none.
    """
    manifest = read_manifest(path)
    with path.open("rb") as file:
        made_by = bundler_of(file.read(LONGEST_MANIFEST))
    tar, why = None, "no private key was given"
    if keys.can_open:
        try:
            tar, why = _tar_form(manifest, folder, keys), ""
        except BundleError as error:
            why = str(error)
    return Bundle(
        path, manifest, made_by, check_signature(manifest, keys), _parts(manifest, folder), tar, why
    )


def _parts(manifest: BundleManifest, folder: Path) -> Parts:
    sizes: dict[str, int] = {}
    for entry in manifest.parts:
        try:
            status = (folder / entry.filename).stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[entry.filename] = status.st_size
    names = [entry.filename for entry in manifest.parts]
    usual = _usual([sizes[name] for name in names[:-1] if name in sizes], manifest)
    return Parts(
        len(names),
        len(sizes),
        tuple(name for name in names if name not in sizes),
        tuple(_odd(names, sizes, usual, manifest.bundled_size)),
        sum(sizes.values()),
        usual,
    )


def _usual(sizes: list[int], manifest: BundleManifest) -> int | None:
    """Return the size of all parts but the last: what most have, if the sum can be with that."""
    count, total = len(manifest.parts), manifest.bundled_size
    often = [size for size, _ in Counter(sizes).most_common()]
    for size in (*often, _USUAL_PART):
        if total is None or (count - 1) * size <= total <= count * size:
            return size
    return None


def _odd(
    names: list[str], sizes: dict[str, int], usual: int | None, total: int | None
) -> Iterator[tuple[str, int]]:
    """Yield name and size of each part that has another size than it should."""
    *whole, last = names
    most = total // len(whole) if total is not None and whole else None
    least = total // len(names) if total is not None else 0
    for name in whole:
        size = sizes.get(name)
        if size is None:
            continue
        if size != usual if usual is not None else not least <= size <= (most or size):
            yield name, size
    if last in sizes and usual is not None and total is not None:
        wanted = total - len(whole) * usual
        if sizes[last] != wanted:
            yield last, sizes[last]


def _tar_form(manifest: BundleManifest, folder: Path, keys: Keys) -> TarForm:
    """Open a bundle as far as the head of its tar stream.

    Raises:
        BundleError: the keys do not open it, or it is damaged.
    """
    # Whose it is does not matter to who only looks; the signature is told besides.
    secret = unlock(manifest, keys, ignore_signature=True)
    with PartFiles(manifest, folder) as parts:
        plain = PlainByPoints(Unsealed(parts, secret), None, manifest.name)
        try:
            head = plain.read(0, BLOCK)
            member = read_member(plain.read)
        finally:
            plain.close()
    data = sum(member.runs[at].image.length for at in range(len(member.runs)))
    return TarForm(_kind(head), member.name, data < member.size, data)


def _kind(head: bytes) -> str:
    kind, magic = head[156:157], head[257:265]
    if kind in (b"x", b"g"):
        return "pax"
    if magic == b"ustar  \0":
        return "GNU, sparse" if kind == SPARSE else "GNU"
    return "ustar" if magic.startswith(b"ustar\0") else "old (v7)"
