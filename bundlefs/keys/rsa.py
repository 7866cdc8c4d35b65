"""What is done with RSA keys: a bundle's secret is wrapped and opened, and a manifest signed.

Wrapping and signing live here and nowhere else; `keys.files` reads the keys. What is secret has no
`repr`.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA1

from bundlefs.base.errors import BundleError, KeyFileError
from bundlefs.base.spans import ceil_div
from bundlefs.keys.types import Passphrase, StrPath

SECRET_SIZE = 16
EPHEMERAL_BITS = 2048


@dataclass(frozen=True, slots=True)
class Secret:
    """What seals a bundle: `key` and `iv`, 16 bytes each (AES-128-CBC). No `repr` shows either."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != SECRET_SIZE or len(self.iv) != SECRET_SIZE:
            raise ValueError(f"the key and the IV of a bundle are {SECRET_SIZE} bytes each")

    @classmethod
    def generate(cls) -> Self:
        """Make a new key and IV from the system's random source."""
        return cls(secrets.token_bytes(SECRET_SIZE), secrets.token_bytes(SECRET_SIZE))


class UserKeys:
    """The user's side of a manifest: `public` wraps the secret, `private` signs. Thread-safe.

    An ephemeral key takes the place of what is missing: without either it does both. EC2 cannot
    check the user's signature, so a key that is forgotten afterwards will do [contrib/format.md,
    The manifest]. To make one takes as long as all else that a mount has to do, so it is made
    when it is first used. No `repr` shows any of it.
    """

    __slots__ = ("_lock", "_private", "_public")

    def __init__(self, public: RSAPublicKey | None, private: RSAPrivateKey | None) -> None:
        self._public = public
        self._private = private
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        key_path: StrPath | None,
        cert_path: StrPath | None,
        passphrase: Passphrase | None = None,
    ) -> Self:
        """Read the user's key, certificate or both. A key alone wraps with its public half.

        Raises:
            KeyFileError: a file is of no use, or the two do not belong together.
        """
        if key_path is None and cert_path is None:
            return cls(None, None)
        from bundlefs.keys import files  # noqa: PLC0415  # slow, and most have no key of their own

        private = None if key_path is None else files.load_private_key(key_path, passphrase)
        if cert_path is None:
            return cls(None, private)
        public = files.load_public_key(cert_path)
        if key_path is not None and private and not same_key(public, private.public_key()):
            raise KeyFileError(
                f"{files.name_of(cert_path)} is not for the private key in"
                f" {files.name_of(key_path)}: give the two that belong together, or the key alone"
            )
        return cls(public, private)

    @property
    def public(self) -> RSAPublicKey:
        """The key that wraps the secret."""
        return self._public or self.private.public_key()

    @property
    def private(self) -> RSAPrivateKey:
        """The key that signs."""
        with self._lock:
            if self._private is None:
                self._private = generate_private_key(65537, EPHEMERAL_BITS)
            return self._private

    @property
    def signature_digits(self) -> int:
        """How long a signature is in hex, known before there is a key."""
        return _digits(self._private.key_size if self._private else EPHEMERAL_BITS)

    @property
    def wrapped_digits(self) -> int:
        """How long a wrapped key or IV is in hex, known before there is a key."""
        return _digits(self._public.key_size) if self._public else self.signature_digits


def same_key(one: RSAPublicKey, other: RSAPublicKey) -> bool:
    """Return whether two objects are the same RSA key."""
    return one.public_numbers() == other.public_numbers()


def fingerprint(public: RSAPublicKey) -> str:
    """Return the SHA-256 of a public key's numbers, in hex, to tell keys apart."""
    numbers = public.public_numbers()
    return hashlib.sha256(f"{numbers.n:x} {numbers.e:x}".encode()).hexdigest()


def wrap(public: RSAPublicKey, secret: Secret) -> tuple[str, str]:
    """Encrypt the key and the IV, so that the owner of `public` alone can unbundle.

    Each is written as 32 lowercase hex digits, and that text is encrypted with RSA PKCS#1 v1.5
    [contrib/format.md, The manifest]. The padding is random, so two calls return different texts.

    Returns:
        Encrypted key and encrypted IV in hex, each twice as long as the modulus in bytes.
    """
    return _encrypt(public, secret.key), _encrypt(public, secret.iv)


def sign(private: RSAPrivateKey, text: bytes) -> str:
    """Return the RSA-SHA1 signature, PKCS#1 v1.5: hex, twice as long as the modulus in bytes."""
    return private.sign(text, PKCS1v15(), SHA1()).hex()  # noqa: S303  # the format's digest


def unwrap(private: RSAPrivateKey, wrapped: tuple[str, str]) -> Secret:
    """Undo `wrap`: decrypt the hex of the encrypted key and IV.

    A value shorter than 32 digits is filled up with zeros, as `openssl enc -K` and `-iv` do:
    some bundlers (scalarizr) wrote IVs of 16 digits.

    Raises:
        BundleError: this key does not open them.
    """
    opened = []
    for text in wrapped:
        try:
            digits = private.decrypt(bytes.fromhex(text), PKCS1v15()).decode("ascii")
            opened.append(bytes.fromhex(digits.ljust(2 * SECRET_SIZE, "0")))
        except ValueError:
            opened.append(b"")
    # A wrong key may give bytes of any kind: OpenSSL answers so on purpose.
    if any(len(value) != SECRET_SIZE for value in opened):
        raise BundleError(
            "this private key does not open the manifest's encrypted key: it is another's,"
            " or the manifest was made without a user key"
        )
    return Secret(*opened)


def verify(public: RSAPublicKey, text: bytes, signature: str) -> bool:
    """Return whether `signature` (hex) is what `sign` makes of `text` with the private half."""
    try:
        public.verify(bytes.fromhex(signature), text, PKCS1v15(), SHA1())  # noqa: S303  # same
    except InvalidSignature:
        return False
    return True


def wrapped_digits(public: RSAPublicKey) -> int:
    """Return how long each text is that `wrap` returns."""
    return _digits(public.key_size)


def _digits(bits: int) -> int:
    return 2 * ceil_div(bits, 8)


def _encrypt(public: RSAPublicKey, secret: bytes) -> str:
    return public.encrypt(secret.hex().encode("ascii"), PKCS1v15()).hex()
