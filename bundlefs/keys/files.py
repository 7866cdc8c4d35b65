"""RSA keys and certificates, read from files: PEM or DER, encrypted or not.

Which file serves as what is told by what is in it, never by its name; a file that does not serve
is refused with the reason and, where there is one, the command that helps. How a passphrase is
asked for is the caller's business: a function is given, and is called only when a key turns out
to be encrypted. Nothing secret gets into an error, a traceback or a `repr`.
"""

import os
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from bundlefs.base.errors import KeyFileError
from bundlefs.keys.types import Passphrase, StrPath

if TYPE_CHECKING:  # of all that is loaded for a key, it takes the longest
    from cryptography.x509 import Certificate

MIN_BITS = 1024
"""PKCS#1 v1.5 alone would do with 43 bytes for 32 digits and 46 for a SHA-1 signature.

EC2's own keys, of 1024 bits, set the bar: a laptop breaks what is smaller.
"""

_LONGEST_FILE = 1 << 20
_PEM_LABEL = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_CERTIFICATE = "CERTIFICATE"
_PUBLIC_LABELS = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"})
_OPENSSH = "OPENSSH PRIVATE KEY"
_NOT_LOADED = (ValueError, TypeError, UnsupportedAlgorithm)


def load_public_key(path: StrPath) -> RSAPublicKey:
    """Read an RSA public key from a certificate or bare, PEM or DER.

    The validity of a certificate is never checked: EC2's own certificates, as ec2-ami-tools ships
    them (`etc/ec2/amitools/cert-ec2.pem`), expired long ago and are still in use.

    Raises:
        KeyFileError: the file cannot be read, is neither of the two (a private key is neither), or
            holds a key that is not RSA or too small.
    """
    data = _read(path)
    labels = _labels(data)
    if not labels:
        return _public_from_der(path, data)
    if _CERTIFICATE in labels:
        return _from_certificate(path, _pem_certificate, data)
    if labels & _PUBLIC_LABELS:
        return _from_bare(path, load_pem_public_key, data)
    if any(label.endswith("PRIVATE KEY") for label in labels):
        raise _private_given(path)
    raise _not_a_public_key(path)


def load_private_key(path: StrPath, passphrase: Passphrase | None = None) -> RSAPrivateKey:
    """Read an RSA private key: PKCS#1 or PKCS#8, PEM or DER, encrypted or not.

    Args:
        path: the file.
        passphrase: returns the passphrase; it is called once, and only if the key is encrypted.

    Raises:
        KeyFileError: the file cannot be read or is no private key, the key is not RSA or too
            small, or the passphrase is wrong or missing.
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
            raise KeyFileError(f"{name_of(path)} is not a private key, as PEM or DER") from error
        raise _damaged(path, "private key") from error
    if not isinstance(key, RSAPrivateKey):
        raise _not_rsa(path, key)
    _require_size(path, key.key_size)
    return key


def name_of(path: StrPath) -> str:
    """Return a path as errors name it."""
    return repr(os.fspath(path))


def _read(path: StrPath) -> bytes:
    """Read a key file, and never a whole disk image that was named by mistake."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # takes str and PathLike alike
            data = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {name_of(path)}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise KeyFileError(f"cannot read the key file {name_of(path)}: {error}") from error
    if not data:
        raise KeyFileError(f"the key file {name_of(path)} is empty")
    if len(data) > _LONGEST_FILE:
        raise KeyFileError(f"{name_of(path)} is larger than 1 MiB: that is no key or certificate")
    return data


def _labels(data: bytes) -> frozenset[str]:
    """Return the labels of the PEM blocks in `data`; none means DER or something else."""
    return frozenset(label.decode("ascii") for label in _PEM_LABEL.findall(data))


def _public_from_der(path: StrPath, data: bytes) -> RSAPublicKey:
    """Read DER. It has no label, so it is taken for the first of the three that it parses as."""
    if _loads(_der_certificate, data):
        return _from_certificate(path, _der_certificate, data)
    if _loads(load_der_public_key, data):
        return _from_bare(path, load_der_public_key, data)
    if _is_der_private(data):
        raise _private_given(path)
    raise _not_a_public_key(path)


def _from_certificate(
    path: StrPath, load: "Callable[[bytes], Certificate]", data: bytes
) -> RSAPublicKey:
    try:
        with _quiet():
            key = load(data).public_key()
    except _NOT_LOADED as error:
        raise _damaged(path, "certificate") from error
    return _require_public(path, key)


def _pem_certificate(data: bytes) -> "Certificate":
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415  # see `TYPE_CHECKING`

    return load_pem_x509_certificate(data)


def _der_certificate(data: bytes) -> "Certificate":
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415  # see `TYPE_CHECKING`

    return load_der_x509_certificate(data)


def _from_bare(path: StrPath, load: Callable[[bytes], object], data: bytes) -> RSAPublicKey:
    try:
        key = load(data)
    except _NOT_LOADED as error:
        raise _damaged(path, "public key") from error
    return _require_public(path, key)


def _quiet() -> AbstractContextManager[object]:
    """Silence warnings of an odd serial number or the like: only a certificate's key matters."""
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
            f"{name_of(path)} is in OpenSSH's own format: "
            "convert a copy of it with `ssh-keygen -p -m PEM -f COPY`"
        )
    if any(label.endswith("PRIVATE KEY") for label in labels):
        return
    public = bool(labels & _PUBLIC_LABELS) or _loads(load_der_public_key, data)
    if public or _CERTIFICATE in labels or _loads(_der_certificate, data):
        kind = "public key" if public else "certificate"
        raise KeyFileError(
            f"{name_of(path)} is a {kind}, but a private key is wanted here: "
            "name the file that has the private key"
        )
    if labels:
        raise KeyFileError(f"{name_of(path)} holds no private key, but {', '.join(sorted(labels))}")


def _decrypted(
    path: StrPath,
    load: Callable[[bytes, bytes | None], PrivateKeyTypes],
    data: bytes,
    passphrase: Passphrase | None,
) -> PrivateKeyTypes:
    if passphrase is None:
        raise KeyFileError(f"the private key in {name_of(path)} is encrypted: give its passphrase")
    # Bytes of the environment that are not UTF-8 come as surrogates; they go back as they were.
    password = passphrase().encode("utf-8", "surrogateescape")
    try:
        return load(data, password)
    except UnsupportedAlgorithm as error:
        raise KeyFileError(
            f"the private key in {name_of(path)} is encrypted in a way that is not supported: "
            "convert it with `openssl pkcs8 -topk8 -v2 aes256`"
        ) from error
    except (ValueError, TypeError):
        # A wrong passphrase may also decrypt to rubbish that fails later, as bad key data.
        # No cause is kept: this is where a secret would get into a traceback.
        raise KeyFileError(
            f"the passphrase does not open the private key in {name_of(path)}"
        ) from None


def _require_public(path: StrPath, key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey):
        raise _not_rsa(path, key)
    _require_size(path, key.key_size)
    return key


def _require_size(path: StrPath, bits: int) -> None:
    if bits < MIN_BITS:
        raise KeyFileError(
            f"the RSA key in {name_of(path)} has {bits} bits, and a bundle needs {MIN_BITS} or"
            " more: make one with `openssl genrsa -out FILE 2048`"
        )


def _not_rsa(path: StrPath, key: object) -> KeyFileError:
    kind = re.sub("(Private|Public)Key$", "", type(key).__name__)
    return KeyFileError(
        f"{name_of(path)} holds a key of type {kind}, but a bundle needs an RSA key"
    )


def _damaged(path: StrPath, what: str) -> KeyFileError:
    return KeyFileError(f"the {what} in {name_of(path)} is damaged or of an unsupported kind")


def _private_given(path: StrPath) -> KeyFileError:
    return KeyFileError(
        f"{name_of(path)} is a private key, but a certificate or public key is wanted here: "
        "extract one with `openssl pkey -pubout`"
    )


def _not_a_public_key(path: StrPath) -> KeyFileError:
    return KeyFileError(
        f"{name_of(path)} is neither a certificate nor a public key: give an X.509 certificate "
        "or an RSA public key, as PEM or DER"
    )
