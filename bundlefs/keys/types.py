"""The types of keys, for the layers that do not know `cryptography`.

Apart from `files`, which loads all that library has for certificates and key files: a mount
without a key of the user's is ready before that would be loaded.
"""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

StrPath = str | os.PathLike[str]

Passphrase = Callable[[], str]
"""Asks for the passphrase of a key."""

PublicKey = RSAPublicKey
PrivateKey = RSAPrivateKey
