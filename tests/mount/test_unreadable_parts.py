"""A part that the disk cannot read: a line that names it, and never a byte in its place."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.back import the_line
from tests.mount.broken_disk import broken_disk
from tests.mount.commands import attempt
from tests.mount.opened import opened
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs

MIB = images.MIB
PART = 10 * MIB
BROKEN = "image.part.01"
LINE = f"{BROKEN}: Input/output error"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 25 * MIB)


@pytest.fixture(params=[0, 5 * MIB, PART - 1], ids=["start", "middle", "end"])
def manifest(
    request: pytest.FixtureRequest, image: Path, tmp_path: Path, user_keys: KeyPair
) -> Iterator[Path]:
    """Give the manifest of a bundle of which one part can be read up to somewhere."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    key = ("--user-key", user_keys.private)
    bundlefs("bundle", "--level", "1", "--state", "none", *key, image, folder)
    with broken_disk(tmp_path / "worn", PART, request.param) as disk:
        (folder / BROKEN).unlink()
        (folder / BROKEN).symlink_to(disk)
        yield folder / "image.manifest.xml"


def test_unbundle_names_it(manifest: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    back = tmp_path / "back"
    back.mkdir()
    done = attempt("unbundle", manifest, "--user-key", user_keys.private, "-o", back / "disk")
    assert done.code == 1
    assert LINE in the_line(done.err)
    assert not list(back.iterdir())


def test_verify_names_it(manifest: Path, user_keys: KeyPair) -> None:
    done = attempt("verify", manifest, "--user-key", user_keys.private)
    assert (done.code, done.err) == (1, "")
    [line] = [line for line in done.out.splitlines() if BROKEN in line]
    assert LINE in line


def test_its_bytes_alone_cannot_be_read(
    manifest: Path, image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    content = image.read_bytes()
    shutil.rmtree(tmp_path / "state-home", ignore_errors=True)
    with opened(manifest, tmp_path / "mnt", "--user-key", user_keys.private) as mount:
        assert mount.read(0, 4096) == content[:4096]
        for offset in (15 * MIB, 24 * MIB):
            with pytest.raises(OSError, match="Input/output error"):
                mount.read(offset, 4096)
        assert LINE in mount.log.read_text()
        assert mount.status()["error"]
        assert mount.read(MIB, 4096) == content[MIB : MIB + 4096]
