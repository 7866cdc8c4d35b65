"""RSA keys as openssl makes them."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import run


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
