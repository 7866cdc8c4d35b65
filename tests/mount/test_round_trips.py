"""Image to mount to copy and back again, by every way back that there is: the very same bytes.

Each image is mounted once and its bundle copied out by `cp`; `open` finds the
bundle's state at hand, or does not and goes by access points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.back import done, report
from tests.mount.opened import BY_POINTS, BY_STATE, opened
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import mounted
from tests.support.tools import run

MIB = images.MIB
GIB = 1024 * MIB
PART = 10 * MIB
DATA = {0: b"first", GIB + 4096: images.text(3 * MIB), 3 * GIB - 5: b"last."}


@dataclass(frozen=True, slots=True)
class Trip:
    """An image, its bundle in a folder, and the home of the state that made it."""

    image: Path
    manifest: Path
    states: Path
    key: tuple[str, Path]


def ext4(path: Path) -> Path:
    return images.ext4_image(path, images.file_tree(path.with_suffix(".tree")))


CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "1 byte": (lambda path: images.random_image(path, 1), ()),
    "511 bytes": (lambda path: images.text_image(path, 511), ()),
    "512 bytes": (lambda path: images.text_image(path, 512), ("--level", "1")),
    "1 MiB less 1": (lambda path: images.text_image(path, MIB - 1), ("--level", "0")),
    "1 MiB": (lambda path: images.text_image(path, MIB), ()),
    "1 MiB and 1": (lambda path: images.text_image(path, MIB + 1), ("--level", "1")),
    "ext4": (ext4, ()),
    "ext4, holes as zeros": (ext4, ("--no-sparse", "--level", "1")),
    "ext4, stored": (ext4, ("--level", "0")),
    "ext4, stored, holes as zeros": (ext4, ("--level", "0", "--no-sparse")),
    "25 MiB random": (lambda path: images.random_image(path, 25 * MIB), ()),
    "25 MiB random, stored": (lambda path: images.random_image(path, 25 * MIB), ("--level", "0")),
    "3 GiB sparse": (lambda path: images.sparse_image(path, 3 * GIB, DATA), ("--level", "1")),
}


def assert_same(ours: Path, image: Path) -> None:
    """Compare two files; of a huge one its data, its ends, and samples of its holes."""
    if image.stat().st_size < GIB:
        oracles.assert_same(ours, image)
        return
    assert ours.stat().st_size == image.stat().st_size
    edges = [offset for start, data in DATA.items() for offset in (start, start + len(data))]
    with ours.open("rb") as one, image.open("rb") as other:
        for offset in [*edges, *range(0, 3 * GIB, 61 * MIB + 511)]:
            for file in (one, other):
                file.seek(max(0, offset - 2 * MIB))
            assert one.read(4 * MIB) == other.read(4 * MIB), offset


def bundled(folder: Path, image: Path, user: KeyPair, options: tuple[str, ...]) -> Trip:
    """Mount an image and copy what is there."""
    states = folder / "states"
    env = {"XDG_STATE_HOME": str(states)}
    key = ("--user-key", user.private)
    with mounted(image, folder / "mnt", *options, *key, env=env) as mount:
        run(["cp", "-r", f"{mount.path}/.", folder / "bundle"])
    return Trip(image, folder / "bundle/image.manifest.xml", states, key)


@pytest.fixture(scope="module", params=CASES)
def trip(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair
) -> Trip:
    folder = tmp_path_factory.mktemp("trip")
    build, options = CASES[request.param]
    return bundled(folder, build(folder / "disk"), user_keys, options)


def test_verified(trip: Trip) -> None:
    found = report(done("verify", trip.manifest, *trip.key).out)
    assert [outcome for outcome, _ in found.values()] == ["ok"] * 5
    assert str(trip.image.stat().st_size) in str(found)


def test_unbundled(trip: Trip, tmp_path: Path) -> None:
    done("unbundle", trip.manifest, *trip.key, "--sparse", "-o", tmp_path / "disk")
    assert_same(tmp_path / "disk", trip.image)
    assert (tmp_path / "disk").stat().st_blocks <= trip.image.stat().st_blocks + 4096


def assert_opened(trip: Trip, tmp_path: Path, access: str, env: dict[str, str]) -> None:
    with opened(trip.manifest, tmp_path / "mnt", *trip.key, env=env) as mount:
        assert mount.status()["access"] == access
        assert mount.disk.stat().st_size == trip.image.stat().st_size
        assert_same(mount.disk, trip.image)
        assert mount.status()["error"] is None


def test_opened_by_the_index_of_its_state(trip: Trip, tmp_path: Path) -> None:
    assert_opened(trip, tmp_path, BY_STATE, {"XDG_STATE_HOME": str(trip.states)})


def test_opened_by_access_points(trip: Trip, tmp_path: Path) -> None:
    assert_opened(trip, tmp_path, BY_POINTS, {"XDG_STATE_HOME": str(tmp_path / "none")})


def exact(folder: Path, user: KeyPair) -> Trip:
    """Make a bundle whose sealed bytes are an exact multiple of the part size.

    Which image does that depends on the codec, so it is found: each random byte in place of
    a zero makes the bundle about one byte longer.
    """
    random = size = PART
    for attempt in range(20):
        here = folder / str(attempt)
        here.mkdir()
        image = images.tuned_image(here / "disk", random, 12 * MIB)
        trip = bundled(here, image, user, ())
        size = int(oracles.element(trip.manifest, "bundled_size"))
        if size == PART:
            return trip
        random += PART - size
    raise AssertionError(f"no image with {PART} sealed bytes found; the last had {size}")


def test_an_exact_multiple_of_the_part_size(tmp_path: Path, user_keys: KeyPair) -> None:
    trip = exact(tmp_path, user_keys)
    assert oracles.part_names(trip.manifest) == ["image.part.00"]
    test_verified(trip)
    test_unbundled(trip, tmp_path)
    test_opened_by_the_index_of_its_state(trip, tmp_path)
    test_opened_by_access_points(trip, tmp_path)
