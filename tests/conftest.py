"""Fixtures that more than one tier uses. Nothing is made before a test asks for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.bundles import Workshop
from tests.support.folders import tiny
from tests.support.keys import KeyPair, make_key_pair
from tests.support.mounts import detach
from tests.support.sources import Originals

# A busy machine is slow at any moment, and no test is wrong for that.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _machine_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep mounts that outlive a test from the machine's own states."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state-home")))
        yield


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another has left behind."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


@pytest.fixture(scope="session")
def user_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """The user's own key: signs, and opens the user's copy of the secrets."""
    return make_key_pair(tmp_path_factory.mktemp("user"), "user")


@pytest.fixture(scope="session")
def region_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A region whose private key we hold, unlike EC2's: opens the EC2 copy of the secrets."""
    return make_key_pair(tmp_path_factory.mktemp("region"), "region")


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> Workshop:
    """Where bundles are made, by any tool, for the tests of a module."""
    return Workshop(tmp_path_factory.mktemp("workshop"), user_keys, region_keys)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount on; nothing stays there if the test fails."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    detach(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with tiny(tmp_path / "small", 64 << 10) as folder:
        yield folder


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    """One image in every form, for all tests that read one."""
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def raw(originals: Originals) -> Path:
    """The raw image that is in all forms."""
    return originals.raw


@pytest.fixture
def make(originals: Originals, tmp_path: Path) -> Callable[[str], Path]:
    """Copies the image, in the form that is asked for, to a name that tells nothing of it."""
    return lambda form: originals.copy(form, tmp_path / "image")
