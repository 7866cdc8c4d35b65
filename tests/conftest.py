"""Fixtures that more than one tier uses. Nothing is made before a test asks for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tests.support.tools import run

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


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of one RSA-2048 key in PEM: private, public, and a certificate of it."""

    private: Path
    public: Path
    certificate: Path


def make_key_pair(folder: Path, name: str) -> KeyPair:
    """Make a key pair and a certificate of it."""
    pair = KeyPair(*(folder / f"{name}.{kind}.pem" for kind in ("private", "public", "cert")))
    rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    run(["openssl", "genpkey", "-quiet", *rsa, "-out", pair.private])
    pair.private.chmod(0o600)
    run(["openssl", "pkey", "-in", pair.private, "-pubout", "-out", pair.public])
    request = ["openssl", "req", "-new", "-x509", "-subj", f"/CN={name}", "-days", "1"]
    run([*request, "-key", pair.private, "-out", pair.certificate])
    return pair


@pytest.fixture(scope="session")
def user_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """The user's own key: signs, and opens the user's copy of the secrets."""
    return make_key_pair(tmp_path_factory.mktemp("user"), "user")


@pytest.fixture(scope="session")
def region_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A region whose private key we hold, unlike EC2's: opens the EC2 copy of the secrets."""
    return make_key_pair(tmp_path_factory.mktemp("region"), "region")


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """An empty folder to mount on."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    return folder
