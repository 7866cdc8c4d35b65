"""Images, and mounts of them, that several modules of this folder use."""

from pathlib import Path

import pytest

from tests.support import images
from tests.support.mounts import mounted

MIB = images.MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two parts of noise."""
    return images.random_image(tmp_path / "disk", 12 * MIB)


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    """Where state files are unless another place is named."""
    return tmp_path / "state-home" / "bundlefs"


@pytest.fixture
def state(image: Path, mountpoint: Path, state_folder: Path) -> Path:
    """The state file of a complete bundle."""
    with mounted(image, mountpoint, "--level", "1") as mount:
        mount.manifest().read_bytes()
    [path] = state_folder.glob("*.state")
    return path
