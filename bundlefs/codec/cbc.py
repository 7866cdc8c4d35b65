"""AES-128-CBC over a stream that is handed over in pieces of any length.

To go on, CBC needs only the last 16 bytes of ciphertext, and up to 15 bytes of plaintext that did
not fill a block. Both together are a `CbcState`, with which any point of the sealed stream can be
reached without what lies before it. PKCS#7 padding ends the stream.
[contrib/format.md, AES-128-CBC]
"""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK = 16


@dataclass(frozen=True, slots=True)
class CbcState:
    """Where a stream stands. No `repr` shows any of it, since the carry is plaintext.

    Attributes:
        chain: the last 16 bytes of ciphertext; at first the IV.
        carry: 0 to 15 bytes of plaintext that did not fill a block.
    """

    chain: bytes = field(repr=False)
    carry: bytes = field(repr=False, default=b"")


def advance(key: bytes, state: CbcState, data: bytes) -> tuple[memoryview, CbcState]:
    """Encrypt `data` after `state`, as far as it fills blocks.

    Args:
        key: 16 bytes.
        state: what an earlier call returned, or `CbcState(iv)`.
        data: any number of bytes.

    Returns:
        Ciphertext, a multiple of 16 bytes long, and the state after it.
    """
    taken = min(BLOCK - len(state.carry), len(data))
    head, rest = state.carry + data[:taken], memoryview(data)[taken:]
    if len(head) < BLOCK:
        return memoryview(b""), CbcState(state.chain, head)
    whole = len(rest) - len(rest) % BLOCK
    size = BLOCK + whole
    # The buffer is our own, with room for the block that update_into reserves. That is twice as
    # fast as update(), which copies.
    sealed = memoryview(bytearray(size + BLOCK))
    encryptor = Cipher(AES128(key), CBC(state.chain)).encryptor()
    encryptor.update_into(head, sealed)
    encryptor.update_into(rest[:whole], sealed[BLOCK:])
    sealed = sealed[:size].toreadonly()
    return sealed, CbcState(bytes(sealed[-BLOCK:]), bytes(rest[whole:]))


def finish(key: bytes, state: CbcState, data: bytes) -> memoryview:
    """Encrypt the last `data` of the stream, with PKCS#7 padding: n bytes of the value n."""
    fill = BLOCK - (len(state.carry) + len(data)) % BLOCK
    return advance(key, state, data + bytes([fill]) * fill)[0]


def sealed_size(plain_size: int) -> int:
    """Return the size of the padded ciphertext of `plain_size` bytes: 1 to 16 bytes more."""
    return plain_size - plain_size % BLOCK + BLOCK


def decrypt(key: bytes, chain: bytes, sealed: bytes) -> bytes:
    """Undo `advance` for any run of whole blocks; the padding, if any, stays.

    Args:
        key: 16 bytes.
        chain: the 16 bytes of ciphertext before `sealed`, or the IV.
        sealed: a multiple of 16 bytes.
    """
    return Cipher(AES128(key), CBC(chain)).decryptor().update(sealed)


def decrypt_into(
    key: bytes, chain: bytes | memoryview, sealed: memoryview, plain: memoryview
) -> None:
    """Decrypt as `decrypt` does, into the start of `plain`, which has a block more than that."""
    Cipher(AES128(key), CBC(bytes(chain))).decryptor().update_into(sealed, plain)


def padding(last: bytes) -> int:
    """Return the length of the PKCS#7 padding at the end of the decrypted last block, 1 to 16.

    Raises:
        ValueError: there is none, so the key is wrong or the end is missing.
    """
    fill = last[-1] if last else 0
    if not 1 <= fill <= BLOCK or last[-fill:] != bytes([fill]) * fill:
        raise ValueError("no padding at the end")
    return fill
