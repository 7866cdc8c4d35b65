"""RSA keys: read from files or made for the occasion; what is wrapped and signed with them.

Key files, wrapping and signing live here and nowhere else. How a passphrase is
asked for is the caller's business: this module is given a function and calls it
only when a key turns out to be encrypted. What is secret has no `repr`.
"""

import hashlib
import os
import re
import secrets
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from bundlefs.base.errors import BundleError, KeyFileError

SECRET_SIZE = 16
OCCASION_BITS = 2048
# PKCS#1 v1.5 alone would do with 43 bytes for 32 digits and 46 for a SHA-1
# signature. EC2's own keys set the bar: what is smaller falls to a laptop.
MIN_BITS = 1024

StrPath = str | os.PathLike[str]
Passphrase = Callable[[], str]

_LONGEST_FILE = 1 << 20
_PEM_LABEL = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_CERTIFICATE = "CERTIFICATE"
_PUBLIC_LABELS = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"})
_OPENSSH = "OPENSSH PRIVATE KEY"
_NOT_LOADED = (ValueError, TypeError, UnsupportedAlgorithm)


PublicKey = RSAPublicKey
PrivateKey = RSAPrivateKey
"""RSA keys of `cryptography`, for the layers that do not know that library."""


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


@dataclass(frozen=True, slots=True)
class UserKeys:
    """The user's side of a manifest: `public` wraps the secret, `private` signs."""

    public: RSAPublicKey
    private: RSAPrivateKey = field(repr=False)

    @classmethod
    def load(
        cls,
        key_path: StrPath | None,
        cert_path: StrPath | None,
        passphrase: Passphrase | None = None,
    ) -> Self:
        """Read the user's key, certificate or both, and make what is not given for the occasion.

        A key alone wraps with its own public half. A certificate alone wraps, and
        a new RSA-2048 key signs. EC2 cannot check the signature, so a key that is
        forgotten afterwards does [bundle-format: Signature].

        Raises:
            KeyFileError: a file is of no use, or the two do not belong together.
        """
        private = load_private_key(key_path, passphrase) if key_path is not None else _occasion()
        if cert_path is None:
            return cls(private.public_key(), private)
        public = load_public_key(cert_path)
        if key_path is not None and not same_key(public, private.public_key()):
            raise KeyFileError(
                f"{_name(cert_path)} is not for the private key in {_name(key_path)}: "
                "give the two that belong together, or the key alone"
            )
        return cls(public, private)


def same_key(one: RSAPublicKey, other: RSAPublicKey) -> bool:
    """Tell whether two objects are the same RSA key."""
    return one.public_numbers() == other.public_numbers()


def fingerprint(public: RSAPublicKey) -> str:
    """Give the SHA-256 of a public key's numbers, in hex: tells keys apart, reveals nothing."""
    numbers = public.public_numbers()
    return hashlib.sha256(f"{numbers.n:x} {numbers.e:x}".encode()).hexdigest()


def wrap(public: RSAPublicKey, secret: Secret) -> tuple[str, str]:
    """Encrypt the key and the IV, so that the owner of `public` alone can unbundle.

    Each is written as 32 lowercase hex digits, and that text is encrypted with
    RSA PKCS#1 v1.5 [bundle-format: Secrets]. The padding is random: two calls differ.

    Returns:
        Encrypted key and encrypted IV in hex, each twice as long as the modulus in bytes.
    """
    return _encrypt(public, secret.key), _encrypt(public, secret.iv)


def sign(private: RSAPrivateKey, text: bytes) -> str:
    """Sign with RSA-SHA1, PKCS#1 v1.5: hex, twice as long as the modulus in bytes."""
    return private.sign(text, PKCS1v15(), SHA1()).hex()  # noqa: S303  # the format's digest


def unwrap(private: RSAPrivateKey, wrapped: tuple[str, str]) -> Secret:
    """Undo `wrap`: decrypt the hex of the encrypted key and IV.

    A value shorter than 32 digits is filled with zeros, as openssl does with what it is given:
    some bundlers wrote IVs of 16 digits [peers: scalarizr].

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
    """Tell whether `signature` (hex) is what `sign` makes of `text` with the private half."""
    try:
        public.verify(bytes.fromhex(signature), text, PKCS1v15(), SHA1())  # noqa: S303  # same
    except InvalidSignature:
        return False
    return True


def load_public_key(path: StrPath) -> RSAPublicKey:
    """Read an RSA public key from a certificate or bare, PEM or DER.

    The validity of a certificate is never checked: EC2's own expired long ago and
    are in use [ec2-public-keys: note].

    Raises:
        KeyFileError: unreadable, neither of the two (a private key is neither), not RSA, too small.
    """
    data = _read(path)
    labels = _labels(data)
    if not labels:
        return _public_from_der(path, data)
    if _CERTIFICATE in labels:
        return _from_certificate(path, x509.load_pem_x509_certificate, data)
    if labels & _PUBLIC_LABELS:
        return _from_bare(path, load_pem_public_key, data)
    if any(label.endswith("PRIVATE KEY") for label in labels):
        raise _private_given(path)
    raise _not_a_public_key(path)


def load_private_key(path: StrPath, passphrase: Passphrase | None = None) -> RSAPrivateKey:
    """Read an RSA private key: PKCS#1 or PKCS#8, PEM or DER, encrypted or not.

    Args:
        path: the file.
        passphrase: gives the passphrase; called once, and only if the key is encrypted.

    Raises:
        KeyFileError: unreadable, not a private key, not RSA, too small, or the passphrase
            is wrong or missing.
    """
    data = _read(path)
    labels = _labels(data)
    _refuse_what_is_not_private(path, data, labels)
    load = load_pem_private_key if labels else load_der_private_key
    try:
        key = load(data, None)
    except TypeError:  # how cryptography says that the key is encrypted
        key = _decrypted(path, load, data, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        if not labels:
            raise KeyFileError(f"{_name(path)} is not a private key, as PEM or DER") from error
        raise _damaged(path, "private key") from error
    if not isinstance(key, RSAPrivateKey):
        raise _not_rsa(path, key)
    _require_size(path, key.key_size)
    return key


def _occasion() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=OCCASION_BITS)


def _encrypt(public: RSAPublicKey, secret: bytes) -> str:
    return public.encrypt(secret.hex().encode("ascii"), PKCS1v15()).hex()


def _name(path: StrPath) -> str:
    return repr(os.fspath(path))


def _read(path: StrPath) -> bytes:
    """Read a key file, but never a whole disk image that was named by mistake."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # takes str and PathLike alike
            data = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {_name(path)}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise KeyFileError(f"cannot read the key file {_name(path)}: {error}") from error
    if not data:
        raise KeyFileError(f"the key file {_name(path)} is empty")
    if len(data) > _LONGEST_FILE:
        raise KeyFileError(f"{_name(path)} is larger than 1 MiB: that is no key or certificate")
    return data


def _labels(data: bytes) -> frozenset[str]:
    """Give the kinds of PEM blocks in `data`; none means DER or something else."""
    return frozenset(label.decode("ascii") for label in _PEM_LABEL.findall(data))


def _public_from_der(path: StrPath, data: bytes) -> RSAPublicKey:
    """Read DER, which carries no label: the one of the three that it parses as."""
    if _loads(x509.load_der_x509_certificate, data):
        return _from_certificate(path, x509.load_der_x509_certificate, data)
    if _loads(load_der_public_key, data):
        return _from_bare(path, load_der_public_key, data)
    if _is_der_private(data):
        raise _private_given(path)
    raise _not_a_public_key(path)


def _from_certificate(
    path: StrPath, load: Callable[[bytes], x509.Certificate], data: bytes
) -> RSAPublicKey:
    try:
        with _quiet():
            key = load(data).public_key()
    except _NOT_LOADED as error:
        raise _damaged(path, "certificate") from error
    return _require_public(path, key)


def _from_bare(path: StrPath, load: Callable[[bytes], object], data: bytes) -> RSAPublicKey:
    try:
        key = load(data)
    except _NOT_LOADED as error:
        raise _damaged(path, "public key") from error
    return _require_public(path, key)


def _quiet() -> AbstractContextManager[object]:
    """Say nothing of an odd serial number or the like: only a certificate's key matters."""
    return warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning)


def _loads(load: Callable[[bytes], object], data: bytes) -> bool:
    try:
        with _quiet():
            load(data)
    except _NOT_LOADED:
        return False
    return True


def _is_der_private(data: bytes) -> bool:
    try:
        load_der_private_key(data, None)
    except TypeError:  # an encrypted one
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _refuse_what_is_not_private(path: StrPath, data: bytes, labels: frozenset[str]) -> None:
    """Say what the file is instead, where that helps more than 'not a private key'."""
    if _OPENSSH in labels:
        raise KeyFileError(
            f"{_name(path)} is in OpenSSH's own format: "
            "convert a copy of it with `ssh-keygen -p -m PEM -f COPY`"
        )
    if any(label.endswith("PRIVATE KEY") for label in labels):
        return
    public = bool(labels & _PUBLIC_LABELS) or _loads(load_der_public_key, data)
    if public or _CERTIFICATE in labels or _loads(x509.load_der_x509_certificate, data):
        kind = "public key" if public else "certificate"
        raise KeyFileError(
            f"{_name(path)} is a {kind}, but a private key is wanted here: "
            "give a certificate or public key with --user-cert"
        )
    if labels:
        raise KeyFileError(f"{_name(path)} holds no private key, but {', '.join(sorted(labels))}")


def _decrypted(
    path: StrPath,
    load: Callable[[bytes, bytes | None], PrivateKeyTypes],
    data: bytes,
    passphrase: Passphrase | None,
) -> PrivateKeyTypes:
    if passphrase is None:
        raise KeyFileError(f"the private key in {_name(path)} is encrypted: give its passphrase")
    # Bytes of the environment that are not UTF-8 come as surrogates; they go back as they were.
    password = passphrase().encode("utf-8", "surrogateescape")
    try:
        return load(data, password)
    except UnsupportedAlgorithm as error:
        raise KeyFileError(
            f"the private key in {_name(path)} is encrypted in a way that is not supported: "
            "convert it with `openssl pkcs8 -topk8 -v2 aes256`"
        ) from error
    except (ValueError, TypeError):
        # A wrong passphrase may also decrypt to rubbish that fails later, as bad key data.
        # No cause is kept: this is where a secret would get into a traceback.
        raise KeyFileError(
            f"the passphrase does not open the private key in {_name(path)}"
        ) from None


def _require_public(path: StrPath, key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey):
        raise _not_rsa(path, key)
    _require_size(path, key.key_size)
    return key


def _require_size(path: StrPath, bits: int) -> None:
    if bits < MIN_BITS:
        raise KeyFileError(
            f"the RSA key in {_name(path)} has {bits} bits, and a bundle needs {MIN_BITS} or more: "
            "make one with `openssl genrsa -out FILE 2048`"
        )


def _not_rsa(path: StrPath, key: object) -> KeyFileError:
    kind = re.sub("(Private|Public)Key$", "", type(key).__name__)
    return KeyFileError(f"{_name(path)} holds a key of type {kind}, but a bundle needs an RSA key")


def _damaged(path: StrPath, what: str) -> KeyFileError:
    return KeyFileError(f"the {what} in {_name(path)} is damaged or of an unsupported kind")


def _private_given(path: StrPath) -> KeyFileError:
    return KeyFileError(
        f"{_name(path)} is a private key, but a certificate or public key is wanted here: "
        "extract one with `openssl pkey -pubout`"
    )


def _not_a_public_key(path: StrPath) -> KeyFileError:
    return KeyFileError(
        f"{_name(path)} is neither a certificate nor a public key: give an X.509 certificate "
        "or an RSA public key, as PEM or DER"
    )
