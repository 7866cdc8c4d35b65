"""What programs begin with: a view of an image that is the same the next time."""

import subprocess
from pathlib import Path

import pytest

from bundlefs import Bundle, ImageError, Metadata, StateError, UserKeys, open_bundle, view_image
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

METADATA = Metadata(ACCOUNT)
SIZE = 12 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", SIZE, "api")


@pytest.fixture
def keys(user_keys: KeyPair) -> UserKeys:
    return UserKeys.load(user_keys.private, None)


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {name: bytes(bundle.read(name, 0, bundle.size(name))) for name in bundle.names()}


def first_part(bundle: Bundle) -> bytes:
    return next(data for name, data in contents(bundle).items() if name.endswith(".part.00"))


def test_with_a_state_it_is_the_same_again(image: Path, keys: UserKeys, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with view_image(
            image, METADATA, user_keys=keys, level=1, state=tmp_path / "state"
        ) as bundle:
            found.append(contents(bundle))
    assert found[0] == found[1]
    assert set(found[0]) == {"image.part.00", "image.part.01", "image.manifest.xml"}


def test_without_one_it_is_another_each_time(image: Path) -> None:
    found = []
    for _ in range(2):
        with view_image(image, METADATA, level=1) as bundle:
            found.append(contents(bundle)["image.part.00"])
    assert found[0] != found[1]
    assert len(found[0]) == len(found[1])


@pytest.mark.parametrize("change", ["fresh", "level", "prefix", "keys"])
def test_what_is_another_bundle_has_another_key(
    change: str, image: Path, keys: UserKeys, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with view_image(image, METADATA, user_keys=keys, level=1, state=state) as bundle:
        before = first_part(bundle)
    with view_image(
        image,
        METADATA,
        user_keys=None if change == "keys" else keys,
        level=0 if change == "level" else 1,
        prefix="other" if change == "prefix" else "image",
        state=state,
        fresh=change == "fresh",
    ) as bundle:
        after = first_part(bundle)
    assert before[:64] != after[:64]


def test_a_state_in_use_is_refused_by_name_and_free_again_behind(
    image: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with (
        view_image(image, METADATA, level=1, state=state),
        pytest.raises(StateError, match="in use by process"),
    ):
        view_image(image, METADATA, level=1, state=state)
    view_image(image, METADATA, level=1, state=state).close()


def test_what_fails_to_open_leaves_nothing_behind(image: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(ImageError):
        view_image(tmp_path / "none", METADATA, state=state)
    state.write_bytes(b"bundlefs-state, or not")
    with pytest.raises(StateError):
        view_image(image, METADATA, level=1, state=state)
    state.unlink()
    view_image(image, METADATA, level=1, state=state).close()


def test_the_way_back_takes_it(
    image: Path, user_keys: KeyPair, keys: UserKeys, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    with view_image(image, METADATA, user_keys=keys, level=1) as bundle:
        for name, data in contents(bundle).items():
            (folder / name).write_bytes(data)
    with open_bundle(folder / "image.manifest.xml", user_keys.private) as disk:
        (tmp_path / "back").write_bytes(disk.read(0, disk.size))
    subprocess.run(["cmp", tmp_path / "back", image], check=True)
