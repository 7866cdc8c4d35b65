"""From the keys to a bundle's secret: who may open the bundle, and whether it is the user's own.

A manifest has the secret twice: wrapped for the user, and for EC2, whose private key is known to
people who run a cloud of their own. That a key opens it proves nothing: whoever can write to the
bucket and has the user's certificate can put another bundle there, whole and wrapped for the user.
The signature is what they cannot make, so `unlock` returns no secret of a manifest whose signature
does not hold.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from bundlefs.base.errors import BundleError, KeyFileError, SignatureError
from bundlefs.keys.files import load_private_key, load_public_key
from bundlefs.keys.rsa import Secret, same_key, unwrap, verify
from bundlefs.keys.types import Passphrase, PrivateKey, PublicKey
from bundlefs.manifest.read import BundleManifest


class KeyMissingError(BundleError):
    """A private key is needed that was not given; `sides` are those whose key would do."""

    def __init__(self, text: str, *sides: Literal["user", "ec2"]) -> None:
        super().__init__(text)
        self.sides = sides


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys to a bundle that somebody has: any of them, or none."""

    user: PrivateKey | None
    certificate: PublicKey | None
    ec2: PrivateKey | None

    @classmethod
    def load(
        cls,
        user: Path | None,
        certificate: Path | None,
        ec2: Path | None,
        passphrase: Passphrase | None,
    ) -> "Keys":
        """Read those files that are given.

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
    def verifier(self) -> PublicKey | None:
        """The key that can check a signature, if there is one."""
        return self.certificate or (self.user.public_key() if self.user else None)

    @property
    def can_open(self) -> bool:
        """Whether there is a private key, so that a bundle can be opened."""
        return self.user is not None or self.ec2 is not None


class Signature(Enum):
    """What is known of a manifest's signature; the value says it in words."""

    HOLDS = "made by the user's key"
    BAD = "the user's key did not make it, or the manifest was changed since"
    MISSING = "the manifest has none"
    UNCHECKED = "not checked, since no key or certificate of the user is given"


def check_signature(manifest: BundleManifest, keys: Keys) -> Signature:
    """Return what the keys at hand show of the manifest's signature."""
    if manifest.signature is None:
        return Signature.MISSING
    if keys.verifier is None:
        return Signature.UNCHECKED
    held = verify(keys.verifier, manifest.signed_text, manifest.signature)
    return Signature.HOLDS if held else Signature.BAD


def unlock(manifest: BundleManifest, keys: Keys, *, ignore_signature: bool = False) -> Secret:
    """Return the bundle's secret, unless the manifest's signature is bad.

    A signature that is missing, or that no key at hand can check, is no reason to refuse. The
    caller tells the user of it, by `check_signature`.

    Raises:
        KeyMissingError: another key is needed than those that were given.
        BundleError: no key that was given opens it.
        SignatureError: the signature is bad, and `ignore_signature` is not given.
    """
    # This comes first, so that a user with the wrong key hears of the key.
    secret = _unwrapped(manifest, keys)
    if not ignore_signature and check_signature(manifest, keys) is Signature.BAD:
        raise SignatureError(
            f"the signature of the manifest does not hold: {Signature.BAD.value}; the whole bundle"
            " may be somebody else's, so get it anew from where you trust it"
        )
    return secret


def _unwrapped(manifest: BundleManifest, keys: Keys) -> Secret:
    if keys.user:
        wrapped = _both(manifest.user_key, manifest.user_iv)
        if wrapped is None:
            raise KeyMissingError(
                "the manifest has no key for the user: it was bundled without a certificate, so"
                " EC2's private key alone opens it",
                "ec2",
            )
        return unwrap(keys.user, wrapped)
    if keys.ec2:
        wrapped = _both(manifest.ec2_key, manifest.ec2_iv)
        if wrapped is None:
            raise KeyMissingError(
                "the manifest has no key for EC2, so the user's private key alone opens it", "user"
            )
        return unwrap(keys.ec2, wrapped)
    raise KeyMissingError("a private key is needed to decrypt", "user", "ec2")


def _both(key: str | None, iv: str | None) -> tuple[str, str] | None:
    return (key, iv) if key and iv else None
