"""Files of access points: what is not what was saved is made anew, with a warning that says so."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundlefs import OpenedBundle, open_bundle
from bundlefs.state.points_file import PointsFile
from tests.support import bundles, images
from tests.support.bundles import Bundler, Made, Workshop
from tests.support.keys import KeyPair

MIB = 1 << 20
OF = b"of this bundle: thirty-two bytes"
POINTS = bytes(range(64))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder/some.points"
    PointsFile(path, OF).save(POINTS)
    assert PointsFile(path, OF).load() == POINTS
    return path


def require_refused(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert PointsFile(path, OF).load() is None
    [warning] = warnings(caplog)
    assert warning.startswith("access points are made anew: ")
    assert str(path) in warning
    assert not any(word in warning for word in ("state", "key", "--"))


def test_every_bit_flip(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = file.read_bytes()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        file.write_bytes(data)
        require_refused(file, caplog)


def test_every_truncation(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    for size in range(len(file.read_bytes()) - 1, -1, -1):
        os.truncate(file, size)
        require_refused(file, caplog)


def of_another(path: Path) -> None:
    PointsFile(path, OF[::-1]).save(POINTS)


def opened_up(path: Path) -> None:
    path.chmod(0o640)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def of_another_user(path: Path) -> None:
    os.chown(path, 12345, -1)


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def rubbish(path: Path) -> None:
    """Return something that has a checksum, and is nothing that `indexed_gzip` has written."""
    PointsFile(path, OF).save(b"rubbish")


SPOILT: list[Callable[[Path], None]] = [
    *(of_another, opened_up, linked, a_fifo, of_another_user, appended)
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_not_trusted(
    spoil: Callable[[Path], None], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(file)
    require_refused(file, caplog)
    PointsFile(file, OF).save(POINTS)
    assert PointsFile(file, OF).load() == POINTS


def test_what_cannot_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").touch()
    PointsFile(tmp_path / "taken/some.points", OF).save(POINTS)
    [warning] = warnings(caplog)
    assert warning.startswith(f"cannot keep the access points in {tmp_path}/taken/some.points: ")
    assert "--" not in warning


# Under a bundle


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> Made:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"), user_keys, region_keys)
    image = images.write(workshop.folder / "disk", images.noise(9 * MIB, "points"))
    return workshop.make(image, Bundler(bundles.gnu_tar(), ("gzip", "-1")))


def points_file() -> Path:
    [path] = Path(os.environ["XDG_STATE_HOME"]).rglob("*.points")
    return path


def spread(path: Path) -> None:
    """Flip a bit of each of its 50 parts."""
    data = bytearray(path.read_bytes())
    for at in range(50):
        data[len(data) * at // 50] ^= 1
    path.write_bytes(data)


def of_another_bundle(path: Path) -> None:
    """Return the points of another bundle's file, which would lead into the middle of a code."""
    points = path.read_bytes()[32:-32]
    PointsFile(path, OF).save(points)


@pytest.mark.parametrize("spoil", [*SPOILT, rubbish, spread, of_another_bundle])
def test_a_bundle_is_read_all_the_same(
    spoil: Callable[[Path], None], made: Made, user_keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    content = made.image.read_bytes()

    def opened() -> OpenedBundle:
        return open_bundle(made.manifest, user_keys.private)

    with opened() as disk:
        assert disk.read(0, disk.size) == content
    saved = points_file().read_bytes()
    spoil(points_file())
    with opened() as disk:
        assert disk.read(5 * MIB, 2 * MIB) == content[5 * MIB : 7 * MIB]
        assert disk.read(0, disk.size) == content
    [warning] = warnings(caplog)
    assert "access points are made anew" in warning
    assert points_file().read_bytes() == saved
    assert points_file().stat().st_mode & 0o777 == 0o600
