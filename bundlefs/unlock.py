"""Who may open a bundle: from the keys that were given to its secret.

A manifest has the secret twice: for the user, and for EC2. `--ec2-key` is for
those who run an EC2-compatible cloud and hold its private key.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from bundlefs.errors import BundleError, KeyFileError
from bundlefs.keys import (
    Passphrase,
    Secret,
    load_private_key,
    load_public_key,
    same_key,
    unwrap,
    verify,
)
from bundlefs.manifest_reader import BundleManifest


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that somebody has to a bundle: any of them, or none."""

    user: RSAPrivateKey | None
    certificate: RSAPublicKey | None
    ec2: RSAPrivateKey | None

    @classmethod
    def load(
        cls,
        user: Path | None,
        certificate: Path | None,
        ec2: Path | None,
        passphrase: Passphrase | None,
    ) -> "Keys":
        """Read the files that are given.

        Raises:
            KeyFileError: one is of no use, or key and certificate do not belong together.
        """
        keys = cls(
            load_private_key(user, passphrase) if user else None,
            load_public_key(certificate) if certificate else None,
            load_private_key(ec2, passphrase) if ec2 else None,
        )
        if (
            keys.user
            and keys.certificate
            and not same_key(keys.user.public_key(), keys.certificate)
        ):
            raise KeyFileError(f"{certificate} is not for the private key in {user}")
        return keys

    @property
    def verifier(self) -> RSAPublicKey | None:
        """What can check a signature, if anything can."""
        return self.certificate or (self.user.public_key() if self.user else None)

    @property
    def can_open(self) -> bool:
        """Whether there is a private key."""
        return self.user is not None or self.ec2 is not None


def unlock(manifest: BundleManifest, keys: Keys) -> Secret:
    """Give the bundle's secret.

    Raises:
        BundleError: no key that was given opens it.
    """
    if keys.user:
        wrapped = _both(manifest.user_key, manifest.user_iv)
        if wrapped is None:
            raise BundleError(
                "the manifest has no key for the user: it was bundled without a certificate, so"
                " EC2's private key alone opens it (--ec2-key)"
            )
        return unwrap(keys.user, wrapped)
    if keys.ec2:
        wrapped = _both(manifest.ec2_key, manifest.ec2_iv)
        if wrapped is None:
            raise BundleError("the manifest has no key for EC2; give --user-key")
        return unwrap(keys.ec2, wrapped)
    raise BundleError("a private key is needed to decrypt: give --user-key (or --ec2-key)")


def _both(key: str | None, iv: str | None) -> tuple[str, str] | None:
    return (key, iv) if key and iv else None


def is_signed_by(manifest: BundleManifest, public: RSAPublicKey) -> bool:
    """Tell whether the manifest's signature is that of this key's owner.

    Raises:
        BundleError: it has none.
    """
    if manifest.signature is None or not manifest.signed_text:
        raise BundleError("the manifest is not signed")
    return verify(public, manifest.signed_text, manifest.signature)
