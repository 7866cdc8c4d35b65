"""Random access to opened bundles: by state and by access points, by many readers, past damage."""

import contextlib
import errno
import hashlib
import os
import random
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.back import MIB
from tests.mount.commands import refusal
from tests.mount.opened import BY_POINTS, BY_STATE, Opened, opened
from tests.support import bundles, images, oracles
from tests.support.bundles import Bundler, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import mounted
from tests.support.tools import run

SIZE = 24 * MIB
SMALL_PARTS = Bundler(bundles.gnu_tar(), ("gzip", "-1"), part_size=MIB)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half noise, half text: each MiB of the bundle holds about two of it, all along."""
    pieces = []
    for number in range(24):
        pieces += [images.text(MIB // 2, f"text {number}")]
        pieces += images.noise(MIB // 2, f"noise {number}")
    return images.write(tmp_path_factory.mktemp("image") / "disk", iter(pieces))


@pytest.fixture(scope="module")
def content(image: Path) -> bytes:
    return image.read_bytes()


@pytest.fixture(scope="module")
def made(workshop: Workshop, image: Path) -> Made:
    """A bundle of another tool, of many parts."""
    made = workshop.make(image, SMALL_PARTS)
    assert len(made.parts) > 10
    return made


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Made:
    """A copy of it, to be damaged."""
    return made.copy(tmp_path / "bundle")


@pytest.fixture(scope="module")
def key(user_keys: KeyPair) -> tuple[str, Path]:
    return ("--user-key", user_keys.private)


@pytest.fixture(scope="module")
def ours(
    image: Path, key: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A bundle of our own, its manifest and the home of its state."""
    folder = tmp_path_factory.mktemp("ours")
    env = {"XDG_STATE_HOME": str(folder / "states")}
    with mounted(image, folder / "mnt", *key, env=env) as mount:
        run(["cp", "-r", f"{mount.path}/.", folder / "bundle"])
    return folder / "bundle/image.manifest.xml", env


def points_files() -> list[Path]:
    """Give the files that access points are kept in."""
    return list(Path(os.environ["XDG_STATE_HOME"]).glob("bundlefs/*.points"))


def flip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


# Many readers


def hammer(mount: Opened, content: bytes, seconds: float) -> None:
    """Read from eight threads at random, and compare every byte."""
    until = time.monotonic() + seconds

    def reader(seed: int) -> int:
        dice, count = random.Random(seed), 0  # noqa: S311  # not for secrets
        while time.monotonic() < until:
            offset = dice.randrange(len(content))
            length = dice.choice([1, 511, 4096, 65536, 300_000])
            assert mount.read(offset, length) == content[offset : offset + length]
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(reader, range(8)))
    assert min(counts) > 0
    assert mount.status()["error"] is None


def test_random_readers_by_access_points(
    made: Made, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        hammer(mount, content, 2)
        assert mount.status()["access"] == BY_POINTS


def test_random_readers_by_state(
    ours: tuple[Path, dict[str, str]], content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    manifest, env = ours
    with opened(manifest, tmp_path / "mnt", *key, env=env) as mount:
        hammer(mount, content, 2)
        assert mount.status()["access"] == BY_STATE


def test_a_bundle_that_is_a_mount_itself(
    image: Path, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Nothing is copied: parts are made as they are asked for, and undone."""
    with mounted(image, tmp_path / "mnt", "--level", "1", *key) as mount:
        none = {"XDG_STATE_HOME": str(tmp_path / "none")}
        with opened(mount.manifest(), tmp_path / "disk.mnt", *key, env=none) as disk:
            oracles.assert_same(disk.disk, image)
            hammer(disk, content, 1)
        # the state of a mount that is live is only read
        with opened(mount.manifest(), tmp_path / "disk.mnt", *key) as disk:
            assert disk.status()["access"] == BY_STATE
            oracles.assert_same(disk.disk, image)
        assert mount.status()["error"] is None


# Access points


@pytest.fixture
def with_points(bundle: Made, key: tuple[str, Path], tmp_path: Path) -> Path:
    """The file of the access points of a bundle that was read to its end."""
    assert points_files() == []
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        oracles.assert_same(mount.disk, bundle.image)
    [file] = points_files()
    return file


def test_points_are_private(with_points: Path) -> None:
    assert stat.filemode(with_points.stat().st_mode) == "-rw-------"
    assert stat.filemode(with_points.parent.stat().st_mode) == "drwx------"


def test_points_serve_again(
    with_points: Path, bundle: Made, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    """The end can be read past a part that is damaged only by points that are there."""
    before = (with_points.stat().st_ino, with_points.stat().st_mtime_ns)
    flip(bundle.parts[3])
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        assert mount.read(SIZE - 4096, 4096) == content[-4096:]
    # nothing new was learnt, so nothing was written
    assert (with_points.stat().st_ino, with_points.stat().st_mtime_ns) == before
    with_points.unlink()
    refused = pytest.raises(OSError, match="Input/output error")
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount, refused:
        mount.read(SIZE - 4096, 4096)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "open to all"])
def test_points_that_cannot_be_trusted_are_made_anew(
    damage: str, with_points: Path, bundle: Made, key: tuple[str, Path], tmp_path: Path
) -> None:
    whole = with_points.read_bytes()
    if damage == "flipped":
        flip(with_points)
    elif damage == "open to all":
        with_points.chmod(0o644)
    else:
        os.truncate(with_points, 0 if damage == "empty" else len(whole) // 2)
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        oracles.assert_same(mount.disk, bundle.image)
        warning = mount.log.read_text()
        assert "access points are made anew" in warning
        assert "Traceback" not in warning
    assert with_points.read_bytes() == whole
    assert stat.filemode(with_points.stat().st_mode) == "-rw-------"


def test_points_that_cannot_be_kept(bundle: Made, key: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    env = {"XDG_STATE_HOME": str(tmp_path / "taken")}
    with opened(bundle.manifest, tmp_path / "mnt", *key, env=env) as mount:
        oracles.assert_same(mount.disk, bundle.image)
    assert "cannot keep the access points" in mount.log.read_text()


def test_points_of_unchecked_parts_are_not_kept(
    bundle: Made, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Those of a damaged part would give wrong bytes once it is whole."""
    whole = bundle.parts[3].read_bytes()
    flip(bundle.parts[3])
    unchecked = opened(bundle.manifest, tmp_path / "mnt", *key, "--no-verify")
    with unchecked as mount, contextlib.suppress(OSError):
        mount.read(SIZE - 4096, 4096)
    assert points_files() == []
    bundle.parts[3].write_bytes(whole)
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        oracles.assert_same(mount.disk, bundle.image)


# Damage


def look(mount: Opened, content: bytes, offset: int) -> str:
    """Read a MiB; gives `.` if it is right and `x` if it is refused."""
    try:
        data = mount.read(offset, MIB)
    except OSError as error:
        return {errno.EIO: "x"}[error.errno or 0]
    assert data == content[offset : offset + MIB]
    return "."


def scan(mount: Opened, content: bytes) -> str:
    """Look at every MiB."""
    return "".join(look(mount, content, offset) for offset in range(0, SIZE, MIB))


def test_damage_by_access_points(
    bundle: Made, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    part = bundle.parts[6]
    whole = part.read_bytes()
    flip(part)
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        shown = scan(mount, content)
        # a part holds two MiB, and points are four apart: the one before it may be out of reach
        assert shown.startswith("." * 6), shown
        assert shown.endswith("x" * 8), shown
        assert part.name in mount.log.read_text()
        status = mount.status()
        assert (status["phase"], part.name in status["error"]) == ("failed", True)
        part.write_bytes(whole)  # fetched anew
        assert scan(mount, content) == "." * 24


@pytest.fixture
def damaged(ours: tuple[Path, dict[str, str]], tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """A copy of our own bundle whose second part is damaged: manifest, part, environment."""
    manifest, env = ours
    run(["cp", "-r", manifest.parent, tmp_path / "bundle"])
    part = tmp_path / "bundle/image.part.01"
    flip(part)
    return tmp_path / "bundle/image.manifest.xml", part, env


def test_damage_by_state(
    damaged: tuple[Path, Path, dict[str, str]],
    content: bytes,
    key: tuple[str, Path],
    tmp_path: Path,
) -> None:
    manifest, _, env = damaged
    with opened(manifest, tmp_path / "mnt", *key, "--no-verify", env=env) as mount:
        # without digests the damage shows in its own block, and nowhere else
        assert scan(mount, content).count("x") in (1, 2)
        assert re.search("block [0-9]+ of the bundle is", mount.log.read_text())


def test_a_damaged_last_part_is_found_at_once(
    damaged: tuple[Path, Path, dict[str, str]], key: tuple[str, Path], mountpoint: Path
) -> None:
    """The end of the sealed stream tells its size, so that part is read first."""
    manifest, part, _ = damaged
    assert part.name in refusal("open", manifest, *key, mountpoint, code=1)


def test_no_verify_goes_without_digests(
    bundle: Made, key: tuple[str, Path], mountpoint: Path, user_keys: KeyPair
) -> None:
    """The digest is wrong, and the part is not."""
    parts = list(bundle.facts.parts)
    parts[0] = (parts[0][0], hashlib.sha1(b"another").hexdigest())
    bundle.rewrite(user_keys, parts=parts)
    assert parts[0][0] in refusal("open", bundle.manifest, *key, mountpoint, code=1)
    with opened(bundle.manifest, mountpoint, *key, "--no-verify") as mount:
        oracles.assert_same(mount.disk, bundle.image)


def test_a_part_that_goes_away(
    bundle: Made, content: bytes, key: tuple[str, Path], tmp_path: Path
) -> None:
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        bundle.parts[6].unlink()
        shown = scan(mount, content)
        assert shown.startswith("." * 6), shown
        assert shown.endswith("x" * 8), shown
        assert bundle.parts[6].name in mount.status()["error"]
