"""What the tests of images in every form share: the forms, all bytes of one, and a refusal."""

import os
from pathlib import Path

import pytest

from bundlefs.base.errors import ImageError
from bundlefs.image.open import open_source
from bundlefs.image.source import Source
from tests.support import images, sources
from tests.support.processes import children

MIB = images.MIB

every_form = pytest.mark.parametrize("form", sources.ALL)
"""All forms that tools write, with the options that matter."""
ONE_OF_EACH = [
    "gzip",
    "bzip2",
    "xz",
    "zstd",
    "qcow2",
    "vmdk",
    "vmdk-stream",
    "vdi",
    "vhd",
    "vhdx",
    "ova",
]
one_of_each = pytest.mark.parametrize("form", ONE_OF_EACH)
"""Each form that is read, once."""
COMPRESSED = ["gzip", "bzip2", "xz", "zstd"]


def whole(source: Source) -> bytes:
    """Return all of an image."""
    return b"".join(
        source.read(offset, min(MIB, source.size - offset)) for offset in range(0, source.size, MIB)
    )


def descriptors() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def refused(path: Path, spool_dir: Path | None = None) -> str:
    """Return what is said of a file that is not opened; nothing of it stays open, nothing runs."""
    before = descriptors()
    with pytest.raises(ImageError) as caught:
        open_source(path, spool_dir=spool_dir)
    assert descriptors() == before
    assert children(os.getpid()) == []
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
