"""Images that several modules of this folder bundle. None of them is changed by a test."""

from pathlib import Path

import pytest

from tests.interop.bundled import MIB, PART
from tests.support import images


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts and a bit, with no holes, in whole sectors."""
    path = tmp_path_factory.mktemp("image") / "disk"
    return images.random_image(path, 3 * PART + 5 * MIB + 512, "bundle")


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system, most of it holes."""
    folder = tmp_path_factory.mktemp("sparse")
    return images.ext4_image(folder / "disk", images.file_tree(folder / "tree"))


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that takes some seconds at level 9 with one thread: five parts and a bit."""
    return images.random_image(tmp_path_factory.mktemp("slow") / "disk", 5 * PART + 3 * MIB, "slow")
