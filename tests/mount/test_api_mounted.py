"""A view of a program and a mount with the same state: one bundle."""

from pathlib import Path

from bundlefs import Metadata, UserKeys, view_image
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import mounted
from tests.support.tools import ACCOUNT


def test_a_mount_shows_the_same(user_keys: KeyPair, tmp_path: Path) -> None:
    image, state = images.random_image(tmp_path / "disk", 12 << 20, "api"), tmp_path / "state"
    keys, metadata = UserKeys.load(user_keys.private, None), Metadata(ACCOUNT)
    with view_image(image, metadata, user_keys=keys, level=1, state=state) as bundle:
        viewed = {name: bundle.read(name, 0, bundle.size(name)) for name in bundle.names()}
    options = ("--state", state, "--user-key", user_keys.private, "--arch", metadata.arch)
    words = map(str, ("--level", "1", *options))
    with mounted(image, tmp_path / "mnt", *words) as mount:
        shown = {path.name: path.read_bytes() for path in mount.path.iterdir() if path.is_file()}
    assert viewed == shown
    assert len(shown) == 3
