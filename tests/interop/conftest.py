"""Images and bundles that several modules of this folder use. No test changes one for others."""

from pathlib import Path

import pytest

from tests.interop.bundled import MIB, PART
from tests.interop.damaged import SIMPLE
from tests.support import bundles, images
from tests.support.bundles import BUNDLERS, Made, Workshop
from tests.support.keys import KeyPair


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


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, zeros and holes."""
    return bundles.mixed_image(tmp_path_factory.mktemp("mixed") / "disk")


@pytest.fixture(scope="session")
def mixed_bundle(
    mixed: Path,
    tmp_path_factory: pytest.TempPathFactory,
    user_keys: KeyPair,
    region_keys: KeyPair,
) -> Made:
    """A bundle with holes, as ec2-ami-tools makes them."""
    workshop = Workshop(tmp_path_factory.mktemp("made"), user_keys, region_keys)
    return workshop.make(mixed, BUNDLERS["ec2-ami-tools"])


@pytest.fixture(scope="session")
def five_parts(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> Made:
    """A bundle of five parts, the last of them short."""
    workshop = Workshop(tmp_path_factory.mktemp("made"), user_keys, region_keys)
    image = images.random_image(workshop.folder / "disk", 4 * MIB + 12345)
    made = workshop.make(image, SIMPLE)
    assert len(made.parts) == 5
    return made


@pytest.fixture
def bundle(five_parts: Made, tmp_path: Path) -> Made:
    """A copy of `five_parts`, to be damaged."""
    return five_parts.copy(tmp_path / "bundle")


@pytest.fixture
def own_workshop(tmp_path: Path, user_keys: KeyPair, region_keys: KeyPair) -> Workshop:
    """Where bundles are made for one test alone."""
    return Workshop(tmp_path, user_keys, region_keys)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder to write to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
