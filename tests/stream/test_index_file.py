"""The index that travels with a bundle: made the same each time, and worth nothing but time."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundlefs import (
    BundleError,
    BundleWriter,
    MemorySink,
    Metadata,
    State,
    UnknownNameError,
    UserKeys,
    open_bundle,
    view_image,
)
from bundlefs.bundling.bundle import Bundle
from bundlefs.state.places import default_folder
from bundlefs.state.sealed_index import index_size
from tests.stream.engine import CREATED, NANOSECONDS, SECRET, Setting, opened
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

MIB = 1 << 20
INDEX = "image.index"
MANIFEST = "image.manifest.xml"
WITH = Setting(with_index=True)
METADATA = Metadata(ACCOUNT)


def state() -> State:
    return State(None, SECRET, CREATED * NANOSECONDS + 1)


def files(bundle: Bundle) -> dict[str, bytes]:
    """Read all files of a bundle, each of which has the size that was shown."""
    found = {name: bytes(bundle.read(name, 0, 1 << 30)) for name in bundle.names()}
    assert {name: len(data) for name, data in found.items()} == {
        name: bundle.size(name) for name in found
    }
    return found


def parts(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in found.items() if ".part." in name}


# As a file of the bundle


def test_no_other_byte_and_no_name_depends_on_it(mixed: Path) -> None:
    with opened(mixed, Setting()) as without, opened(mixed, WITH) as bundle:
        before, found = files(without), files(bundle)
        assert INDEX not in before
        with pytest.raises(UnknownNameError):
            without.find(INDEX)
        assert parts(found) == parts(before)
        assert found.keys() - before.keys() == {INDEX}
        # not last, so that whoever has all names up to the first part has it
        assert list(found).index(INDEX) == 1


def test_it_is_the_same_in_pieces_and_made_in_any_way(mixed: Path) -> None:
    with opened(mixed, Setting(with_index=True, sparse=False)) as bundle:
        data = bytes(bundle.read(INDEX, 0, 1 << 20))
        pieces = [bytes(bundle.read(INDEX, at, 7)) for at in range(0, len(data) + 7, 7)]
        assert b"".join(pieces) == data
    sink = MemorySink()
    with BundleWriter("image", mixed.stat().st_size, sink, state=state(), level=1) as writer:
        writer.write(mixed.read_bytes())
    assert writer.write_index() == INDEX
    assert sink.files[INDEX] == data


def test_at_level_0_a_listing_still_waits_for_nothing(mixed: Path) -> None:
    with opened(mixed, Setting(level=0, with_index=True)) as bundle:
        shown = {name: bundle.size(name) for name in bundle.names()}
        assert bundle.status().phase == "idle"
        assert shown[INDEX] == index_size(bundle.status().tar_size // MIB + 1)
        assert {name: len(data) for name, data in files(bundle).items()} == shown


def test_a_bundle_goes_on_with_and_without_it(mixed: Path, tmp_path: Path) -> None:
    kept = tmp_path / "state"
    made = []
    for with_index in (False, True, False, True):
        with view_image(mixed, METADATA, state=kept, level=1, with_index=with_index) as bundle:
            made.append(files(bundle))
            assert (INDEX in made[-1]) is with_index
            assert (bundle.status().pass_seconds == 0) is (len(made) > 1)
    assert made[0] == made[2] == {k: v for k, v in made[1].items() if k != INDEX}
    assert made[1] == made[3]


# On the way back


@pytest.fixture(scope="module")
def keys(user_keys: KeyPair) -> UserKeys:
    return UserKeys.load(user_keys.private, None)


def written(folder: Path, image: Path, keys: UserKeys) -> Path:
    """Write a bundle to a folder, whose state nobody keeps."""
    folder.mkdir()
    with view_image(image, METADATA, level=1, user_keys=keys, with_index=True) as bundle:
        for name, data in files(bundle).items():
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, mixed: Path, keys: UserKeys) -> Path:
    """Another bundle of the same image."""
    return written(tmp_path_factory.mktemp("foreign") / "b", mixed, keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mixed: Path, keys: UserKeys) -> Path:
    return written(tmp_path_factory.mktemp("made") / "b", mixed, keys)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to be changed."""
    shutil.copytree(made, tmp_path / "b")
    return tmp_path / "b"


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(16))


def test_the_image_is_read_without_a_pass(
    folder: Path, mixed: Path, user_keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    with open_bundle(folder, user_keys.private) as disk:
        assert disk.access == "by the index beside it"
        assert disk.read(0, 1 << 30) == mixed.read_bytes()
    assert list(default_folder().glob("*.points")) == []
    assert caplog.messages == []


def test_no_part_is_digested_but_those_that_are_read(
    folder: Path, mixed: Path, user_keys: KeyPair
) -> None:
    damage(folder / "image.part.01", 100)
    with open_bundle(folder, user_keys.private) as disk:
        assert disk.read(0, 2 * MIB) == mixed.read_bytes()[: 2 * MIB]
        with pytest.raises(BundleError, match=r"part image\.part\.01 is damaged"):
            disk.read(disk.size - 10, 10)


@pytest.mark.parametrize("place", ["parts", "manifest"])
def test_it_may_lie_with_the_parts_or_with_the_manifest(
    place: str, folder: Path, mixed: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / MANIFEST, elsewhere)
    if place == "manifest":
        shutil.move(folder / INDEX, elsewhere)
    with open_bundle(elsewhere / MANIFEST, user_keys.private, parts=folder) as disk:
        assert disk.access == "by the index beside it"
        assert disk.read(0, 1 << 30) == mixed.read_bytes()


def test_the_state_comes_first(
    mixed: Path, user_keys: KeyPair, keys: UserKeys, tmp_path: Path
) -> None:
    kept = default_folder() / "x.state"
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with view_image(
        mixed, METADATA, state=kept, level=1, user_keys=keys, with_index=True
    ) as bundle:
        for name, data in files(bundle).items():
            (tmp_path / name).write_bytes(data)
    damage(tmp_path / INDEX, 70)
    with open_bundle(tmp_path / MANIFEST, user_keys.private) as disk:
        assert disk.access == "by the index of its state"


SPOILED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "damaged": (lambda index, _: damage(index, 70), "damaged or cut short"),
    "beginning": (lambda index, _: damage(index, 0), "no index of bundlefs, or is damaged"),
    "cut": (lambda index, _: os.truncate(index, index.stat().st_size - 1), "cut short"),
    "empty": (lambda index, _: os.truncate(index, 0), "no index of bundlefs, or is damaged"),
    "another's": (lambda index, other: shutil.copy(other / INDEX, index), "of another bundle"),
    "large": (lambda index, _: os.truncate(index, 1 << 40), "has 1099511627776 bytes"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_one_of_no_use_costs_a_pass_and_no_byte(
    kind: str, folder: Path, foreign: Path, user_keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    with open_bundle(folder, user_keys.private) as disk:
        image = disk.read(0, 1 << 30)
    spoil, why = SPOILED[kind]
    spoil(folder / INDEX, foreign)
    with open_bundle(folder, user_keys.private) as disk:
        assert disk.access == "by access points"
        assert disk.read(0, 1 << 30) == image
    [(_, level, text)] = caplog.record_tuples
    assert level == logging.WARNING
    assert str(folder / INDEX) in text
    assert why in text
    assert "a pass over its parts" in text


def test_what_is_no_file_is_none_of_ours(
    folder: Path, user_keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / INDEX).unlink()
    os.mkfifo(folder / INDEX)
    with open_bundle(folder, user_keys.private) as disk:
        assert disk.access == "by access points"
    assert caplog.messages == []
