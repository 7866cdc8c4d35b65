"""Images, folders of images, and mounts of them, that several modules of this folder use."""

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.live import SIZE
from tests.mount.shelves import OPTIONS
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, mounted
from tests.support.tools import run

MIB = images.MIB
DAMAGED = b"\x1f\x8b\x08" + bytes(100)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two parts of noise."""
    return images.random_image(tmp_path / "disk", 12 * MIB)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five parts of noise, which tests copy and then spoil."""
    return images.random_image(tmp_path_factory.mktemp("original") / "disk", SIZE)


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


@pytest.fixture(scope="module")
def shared_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two full parts, and one of about 3 MiB."""
    return images.random_image(tmp_path_factory.mktemp("image") / "disk", 23 * MIB)


@pytest.fixture(scope="module")
def shared_mount(shared_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that all tests here share: nothing that they do may change it."""
    options = ("--level", "1", "--region", "us-east-1", "--region", "cn-north-1")
    with mounted(shared_image, tmp_path_factory.mktemp("mount") / "mnt", *options) as made:
        yield made


@pytest.fixture(scope="module")
def shared_copy(shared_mount: Mount, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cp` makes of the mount: the reference for every other way of reading."""
    folder = tmp_path_factory.mktemp("copy")
    run(["cp", "-r", f"{shared_mount.path}/.", folder])
    return folder


@pytest.fixture
def shelf_folder(tmp_path: Path) -> Path:
    """Two good images in two forms, a bad one, and what is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    images.random_image(folder / "one.img", 21 * MIB, "one")
    (folder / "two.xz").write_bytes(lzma.compress(images.text(3 * MIB, "two"), preset=0))
    (folder / "bad").write_bytes(DAMAGED)
    (folder / "empty").touch()
    (folder / ".hidden").write_bytes(b"hidden")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def shelf(shelf_folder: Path, tmp_path: Path, user_keys: KeyPair) -> Iterator[Mount]:
    """The mount of `shelf_folder`."""
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(shelf_folder, tmp_path / "mnt", *options) as made:
        yield made
