"""The files of a bundle that is whole: read from its folder, and held against its manifests."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundlefs.state.sealed_index import index_name
from bundlefs.upload.places import Wanted
from bundlefs.upload.words import UploadError, tell

_OF_A_REGION = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d)\.manifest\.xml$")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is to be uploaded: the manifests, and the sizes of the parts by name."""

    folder: Path
    manifests: list[str]
    parts: dict[str, int]
    index: dict[str, int]
    architecture: str


def read_bundle(folder: Path, parts: Mapping[str, int] | None = None) -> Bundle:
    """Read what is in a folder; that of a mount waits until all is made.

    Args:
        folder: of the manifests.
        parts: the sizes of all parts, if they are not in the folder.

    Raises:
        UploadError: the manifests do not tell of what is there.
    """
    names = sorted({path.name for path in folder.iterdir()} | set(parts or ()))
    manifests = [name for name in names if name.endswith(".manifest.xml")]
    if not manifests:
        raise UploadError(
            f"{folder} has no manifest; give a mount of bundlefs, a bundle or an image"
        )
    found: dict[str, int] = {}
    architecture = ""
    for manifest in manifests:
        root = _root(folder, manifest)
        wanted = [one.text or "" for one in root.iterfind("image/parts/part/filename")]
        if missing := [name for name in wanted if name not in names]:
            raise UploadError(f"{folder} lacks {missing[0]}, which {manifest} names; make it again")
        sizes = {name: parts[name] if parts else _size(folder / name) for name in wanted}
        if str(sum(sizes.values())) != root.findtext("image/bundled_size"):
            raise UploadError(f"the parts in {folder} have not the size that {manifest} says")
        found |= sizes
        architecture = root.findtext("machine_configuration/architecture", "x86_64")
    return Bundle(folder, manifests, found, _index(folder, names, found), architecture)


def _index(folder: Path, names: Sequence[str], parts: Mapping[str, int]) -> dict[str, int]:
    """Return name and size of the index that travels with the bundle, if there is one."""
    prefixes = {name.rpartition(".part.")[0] for name in parts}
    return {name: _size(folder / name) for name in map(index_name, prefixes) if name in names}


def _size(path: Path) -> int:
    return path.stat().st_size


def _root(folder: Path, manifest: str) -> ET.Element:
    try:
        return ET.fromstring((folder / manifest).read_bytes())  # noqa: S314  # made by the user
    except ET.ParseError as error:
        raise UploadError(f"a manifest in {folder} is broken: {error}") from error


def compare(bundle: Bundle, there: dict[str, int]) -> None:
    """See that all parts have arrived, and name what else is there.

    Raises:
        UploadError: one has not.
    """
    files = bundle.parts | bundle.index
    wrong = [name for name, size in files.items() if there.get(name) != size]
    if wrong:
        raise UploadError(f"{wrong[0]} is not there with its size; run this again")
    stale = sorted(there.keys() - files.keys() - set(bundle.manifests))
    if stale:
        tell(f"not of this bundle, left as they are: {', '.join(stale)}")


# AMIs


def region_of(manifest: str) -> str | None:
    """Return the region whose own key a manifest is for."""
    found = _OF_A_REGION.search(manifest)
    return found[1] if found else None


def to_register(manifests: list[str], wanted: Wanted) -> list[str]:
    """Return the manifests to make AMIs of: all, the region's own, or the one for all others.

    Raises:
        UploadError: it cannot be told which.
    """
    own, standard = (
        [name for name in manifests if region_of(name) == region]
        for region in (wanted.region, None)
    )
    found = (own or standard) if wanted.region else manifests
    if len(found) != 1 and (wanted.region or wanted.register):
        shown = ", ".join(manifests)
        raise UploadError(f"give --region to tell which of {shown} is to be registered")
    return found


def registering(bundle: Bundle, manifest: str, wanted: Wanted) -> list[str]:
    """Return the command that makes an AMI of a manifest."""
    where = wanted.dest
    region = region_of(manifest) or wanted.region
    words = ["aws", "ec2", "register-image", *(["--region", region] if region else [])]
    words += ["--image-location", f"{where.bucket}/{where.prefix}/{manifest}"]
    words += ["--virtualization-type", "hvm", "--architecture", bundle.architecture]
    words += ["--root-device-name", wanted.root_device_name]
    return [*words, "--name", wanted.register or where.prefix.rpartition("/")[2]]
