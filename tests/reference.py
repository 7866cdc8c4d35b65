"""A whole bundle in memory, the dullest way, and its undoing: what ours is held against.

Nothing here may be clever and nothing may come from bundlefs. The stages are those of the bundle
in contrib/format.md: Python's `tarfile`, one-shot zlib, one-shot AES, a slice for each part.
"""

import hashlib
import io
import tarfile
import zlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

PART_SIZE = 10 * 1024 * 1024
GZIP = 31  # zlib's window of 15 bits, plus 16 for the gzip frame


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that a bundle holds. Digests are SHA-1 in hex."""

    tar: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    parts: list[bytes] = field(repr=False)
    tar_digest: str
    part_digests: list[str]


def tar_stream(image: bytes, name: str, mtime: int) -> bytes:
    """Return the plain GNU member of mode 0644 and root, padded to records of 10,240 bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(image), mtime, 0o644
    member.uname = member.gname = "root"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(image))
    return stream.getvalue()


def deflate(tar: bytes, level: int) -> bytes:
    """Return one gzip member."""
    machine = zlib.compressobj(level, wbits=GZIP)
    return machine.compress(tar) + machine.flush()


def seal(deflated: bytes, key: bytes, iv: bytes) -> bytes:
    """Return AES-128-CBC of all of it, with PKCS#7 padding."""
    padder, encryptor = PKCS7(128).padder(), Cipher(AES128(key), CBC(iv)).encryptor()
    padded = padder.update(deflated) + padder.finalize()
    return encryptor.update(padded) + encryptor.finalize()


def cut(sealed: bytes, part_size: int = PART_SIZE) -> list[bytes]:
    """Return the parts: all of `part_size` bytes but the last, and none empty."""
    return [sealed[start : start + part_size] for start in range(0, len(sealed), part_size)]


def bundle_of_tar(tar: bytes, key: bytes, iv: bytes, *, level: int = 6) -> Bundle:
    """Make the bundle of a tar stream from anywhere."""
    sealed = seal(deflate(tar, level), key, iv)
    parts = cut(sealed)
    digests = [hashlib.sha1(part).hexdigest() for part in parts]
    return Bundle(tar, sealed, parts, hashlib.sha1(tar).hexdigest(), digests)


def bundle(image: bytes, key: bytes, iv: bytes, *, name: str = "image", mtime: int = 0) -> Bundle:
    """Make the bundle of an image."""
    return bundle_of_tar(tar_stream(image, name, mtime), key, iv)


def unseal(parts: list[bytes], key: bytes, iv: bytes) -> bytes:
    """Return what was deflated: the parts joined, decrypted, the padding checked and gone."""
    decryptor, unpadder = Cipher(AES128(key), CBC(iv)).decryptor(), PKCS7(128).unpadder()
    padded = decryptor.update(b"".join(parts)) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def inflate(deflated: bytes) -> bytes:
    """Return the content of exactly one gzip member, its CRC and length checked by zlib.

    Raises:
        AssertionError: The member does not end, or something follows it.
        zlib.error: The stream is damaged.
    """
    machine = zlib.decompressobj(GZIP)
    tar = machine.decompress(deflated)
    assert machine.eof, "the gzip member does not end"
    assert not machine.unused_data, "something follows the gzip member"
    return tar


def unbundle(parts: list[bytes], key: bytes, iv: bytes) -> bytes:
    """Return the tar stream of a bundle."""
    return inflate(unseal(parts, key, iv))


def untar(tar: bytes) -> bytes:
    """Return the content of the first member, its holes as zeros, read as OpenStack does: `r|`."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r|") as archive:
        member = archive.next()
        assert member is not None, "the archive is empty"
        content = archive.extractfile(member)
        assert content is not None, "the first member is no file"
        return content.read()
