"""Parts that change under an opened bundle: never their bytes, an error for good, and told."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.back import MIB
from tests.mount.opened import BY_POINTS, BY_STATE, Opened, opened
from tests.support import bundles, images, oracles
from tests.support.bundles import Bundler, Made, Workshop
from tests.support.changes import CHANGES, TOUCHES, Change, edit
from tests.support.keys import KeyPair
from tests.support.mounts import mounted
from tests.support.tools import run

SIZE = 24 * MIB
NEAR, FAR = 5 * MIB, 9 * MIB  # in the first part both, and not in one chunk of what is inflated


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise is stored as it is: bytes that are edited in a part would come out of the image."""
    return images.write(tmp_path_factory.mktemp("image") / "disk", images.noise(SIZE, "changes"))


@pytest.fixture(scope="module")
def content(image: Path) -> bytes:
    return image.read_bytes()


@pytest.fixture(scope="module")
def made(
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
    user_keys: KeyPair,
    region_keys: KeyPair,
) -> Made:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"), user_keys, region_keys)
    return workshop.make(image, Bundler(bundles.gnu_tar(), ("gzip", "-1")))


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Made:
    return made.copy(tmp_path / "bundle")


@pytest.fixture(scope="module")
def key(user_keys: KeyPair) -> tuple[str, Path]:
    return ("--user-key", user_keys.private)


@pytest.fixture
def mount(bundle: Made, key: tuple[str, Path], tmp_path: Path) -> Iterator[Opened]:
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        yield mount


def refused(mount: Opened, offset: int, number: int) -> bool:
    with pytest.raises(OSError, match=r"\[Errno") as error:
        mount.read(offset, 4096)
    return error.value.errno == number


def require_told(mount: Opened, part: Path) -> None:
    status = mount.status()
    assert status["phase"] == "failed"
    assert f"{part} was changed" in status["error"]
    [line] = [line for line in mount.log.read_text().splitlines() if "ERROR" in line]
    assert str(part) in line
    assert "Traceback" not in mount.log.read_text()


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_that_changes(change: Change, bundle: Made, mount: Opened, content: bytes) -> None:
    part = bundle.parts[0]
    whole, times = part.read_bytes(), part.stat()
    assert mount.status()["access"] == BY_POINTS
    assert mount.read(NEAR, 4096) == content[NEAR : NEAR + 4096]
    change(part)
    assert refused(mount, FAR, errno.ESTALE)
    require_told(mount, part)
    # put back as it was, it stays refused
    part.write_bytes(whole)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert all(refused(mount, FAR, errno.ESTALE) for _ in range(3))
    # what has been read before was right
    assert mount.read(NEAR, 4096) == content[NEAR : NEAR + 4096]
    require_told(mount, part)


def test_the_last_part_is_known_since_the_beginning(
    bundle: Made, mount: Opened, content: bytes
) -> None:
    """The end of the stream tells its size, so that part is digested first, and read last."""
    part = bundle.parts[-1]
    edit(part)
    assert refused(mount, 22 * MIB, errno.ESTALE)
    require_told(mount, part)
    assert mount.read(NEAR, 4096) == content[NEAR : NEAR + 4096]


def test_an_edit_after_much_reading(bundle: Made, mount: Opened, content: bytes) -> None:
    """What is kept in memory is right; what no longer is must not be read anew."""
    assert mount.read(0, SIZE) == content
    edit(bundle.parts[0], 8 * MIB)
    found = [outcome(mount, offset) for offset in range(0, SIZE, MIB)]
    right = [content[offset : offset + MIB] for offset in range(0, SIZE, MIB)]
    assert all(data in (wanted, errno.ESTALE) for data, wanted in zip(found, right, strict=True))


def outcome(mount: Opened, offset: int) -> bytes | int | None:
    try:
        return mount.read(offset, MIB)
    except OSError as error:
        return error.errno


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_part_that_has_the_same_bytes(
    touch: Change, bundle: Made, mount: Opened, image: Path, content: bytes
) -> None:
    assert mount.read(NEAR, 4096) == content[NEAR : NEAR + 4096]
    for part in bundle.parts:
        touch(part)
    oracles.assert_same(mount.disk, image)
    assert mount.status()["phase"] == "complete"


def test_by_the_index_of_a_state(
    image: Path, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    with mounted(image, tmp_path / "bundling", *key) as mount:
        run(["cp", "-r", f"{mount.path}/.", tmp_path / "bundle"])
    manifest = tmp_path / "bundle/image.manifest.xml"
    with opened(manifest, tmp_path / "mnt", *key) as disk:
        assert disk.status()["access"] == BY_STATE
        assert disk.read(0, 4096) == content[:4096]
        edit(tmp_path / "bundle/image.part.00", 8 * MIB)
        assert refused(disk, 8 * MIB, errno.ESTALE)
        require_told(disk, tmp_path / "bundle/image.part.00")


@pytest.mark.parametrize("change", CHANGES)
def test_without_digests(
    change: Change, bundle: Made, key: tuple[str, Path], content: bytes, tmp_path: Path
) -> None:
    with opened(bundle.manifest, tmp_path / "mnt", *key, "--no-verify") as mount:
        assert mount.read(NEAR, 4096) == content[NEAR : NEAR + 4096]
        change(bundle.parts[0])
        assert refused(mount, FAR, errno.ESTALE)
        require_told(mount, bundle.parts[0])


def test_the_manifest_may_go(
    bundle: Made, key: tuple[str, Path], image: Path, tmp_path: Path
) -> None:
    """It is read once."""
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        bundle.manifest.unlink()
        oracles.assert_same(mount.disk, image)
        assert mount.status()["phase"] == "complete"


@pytest.mark.parametrize("count", [1, 100])
def test_errors_are_told_once(count: int, bundle: Made, mount: Opened) -> None:
    edit(bundle.parts[-1])
    assert all(refused(mount, 22 * MIB, errno.ESTALE) for _ in range(count))
    assert len(re.findall("ERROR", mount.log.read_text())) == 1
