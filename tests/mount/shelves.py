"""Mounts of folders of images: how far each image is, and how one is refused or undone."""

import os
from pathlib import Path

import pytest

from tests.support import oracles
from tests.support.keys import KeyPair
from tests.support.mounts import Mount

OPTIONS = ("--level", "1")
BAD = "image {}"


def phases(mount: Mount) -> dict[str, str]:
    """Give the phase of each image."""
    return {image["name"]: image["phase"] for image in mount.status()["images"]}


def refused(path: Path) -> int:
    """List a folder that cannot be; give the errno."""
    with pytest.raises(OSError, match=str(path)) as caught:
        os.listdir(path)  # noqa: PTH208  # the path's own way hides an error
    return int(caught.value.errno or 0)


def assert_undone(parts: Path, image: Path, keys: KeyPair) -> None:
    """Have stock tools undo a bundle, and compare it with its image."""
    manifest = parts / "image.manifest.xml"
    found = sorted(parts.glob("image.part.*"))
    assert oracles.part_names(manifest) == [part.name for part in found]
    assert oracles.part_digests(manifest) == oracles.sha1sum(found)
    oracles.compare_streaming(found, oracles.secrets(manifest, keys.private), image)
