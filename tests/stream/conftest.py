"""Images, folders of images and stores that several modules of this folder use."""

import os
from pathlib import Path

import pytest

from bundlefs.bundling import store
from bundlefs.fuse.shelf import Shelf
from tests.stream.disks import KINDS
from tests.stream.engine import Setting, opened, read_parts
from tests.stream.shelves import Opener
from tests.support import images
from tests.support.sources import Originals

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, holes and noise: two parts at every level, and an end that is not aligned."""
    folder = tmp_path_factory.mktemp("mixed")
    data = {
        0: images.text(MIB),
        2 * MIB + 512 * KIB: b"".join(images.noise(10 * MIB + 300 * KIB)),
        13 * MIB: images.text(100 * KIB + 7, "end"),
    }
    return images.sparse_image(folder / "disk", 13 * MIB + 100 * KIB + 7, data)


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 MiB of noise: seven parts at every level."""
    return images.random_image(tmp_path_factory.mktemp("noisy") / "disk", 60 * MIB)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store keep two blocks."""
    monkeypatch.setattr(store, "RECENT_SIZE", 2 * MIB + 10 * KIB)


@pytest.fixture(scope="session")
def content(originals: Originals) -> bytes:
    """The bytes of the raw image that is in all forms."""
    return originals.raw.read_bytes()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty folder to unpack into."""
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a state file is to be, in a folder that is not there yet."""
    return tmp_path / "folder" / "disk.state"


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A disk without a partition table of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind, make in KINDS.items():
        make(folder / kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in a folder, a link to one, and what is no image."""
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.fixture
def opener() -> Opener:
    """Who opens images for `shelf`."""
    return Opener()


@pytest.fixture
def shelf(folder: Path, opener: Opener) -> Shelf:
    """The folder of images."""
    return Shelf(folder, opener)


@pytest.fixture(scope="module")
def parts(noisy: Path) -> dict[str, bytes]:
    """What a mount shows of `noisy`: seven parts."""
    with opened(noisy, Setting(level=1, cache=256 * MIB)) as bundle:
        return {f"image.part.{number:02}": data for number, data in enumerate(read_parts(bundle))}
