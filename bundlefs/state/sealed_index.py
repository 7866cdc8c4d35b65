"""The index that travels with a bundle: `PREFIX.index`, byte by byte; contrib/format.md has it too.

It holds what random access needs and the parts do not tell: where each block ends, and its CRC-32.
It is sealed by keys that follow from the bundle's own, so whoever can open the bundle can read it,
and nobody else can read or change it. It names the parts that it belongs to by their digests. The
same bundle has the same index, byte for byte, each time it is made. Nothing here touches a file.

What is read may be anything. So its size has a limit, no number in it is believed before it is
authenticated, and none sets the size of anything even then.
"""

import hashlib
import hmac
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise

from bundlefs.base.spans import Span
from bundlefs.codec import cbc
from bundlefs.codec.cbc import CbcState
from bundlefs.codec.deflate import BLOCK_SIZE, GZIP_HEADER, gzip_trailer
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import IndexDump

MAGIC = b"bundlefs-index "
VERSION = 1
LARGEST = 256 << 20
"""Bytes of an index that is read; that of the largest image has half of it."""

_HEAD = MAGIC + b"%d\n" % VERSION
_HASH = 32
HEAD = len(_HEAD) + _HASH
"""Bytes at the beginning that tell what it is, and of which bundle."""
_ENTRY = 8
_AROUND = len(_HEAD) + _HASH + cbc.BLOCK + _HASH
_LONGEST_BLOCK = 2 * BLOCK_SIZE
"""Stored blocks are but a few bytes longer than what is in them."""


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Where the blocks of a bundle are in its gzip stream, and what is in them."""

    _ends: Sequence[int] = field(repr=False)
    _crcs: Sequence[int] = field(repr=False)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self._crcs)

    @property
    def gzip_size(self) -> int:
        """Bytes of the gzip stream, which ends behind the last block with its trailer."""
        return self._ends[-1] + len(gzip_trailer(0, 0))

    def gzip_span(self, block: int) -> Span:
        """Return the range of the gzip stream that a block makes up."""
        return Span(self._ends[block], self._ends[block + 1])

    def crc(self, block: int) -> int:
        """Return the CRC-32 of the plain bytes of a block."""
        return self._crcs[block]


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys for an index alone, so that nothing is encrypted or signed twice under one key."""

    encrypt: bytes = field(repr=False)
    start: bytes = field(repr=False)
    sign: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: Secret) -> "_Keys":
        encrypt, start, sign = (
            _hmac(secret.key, MAGIC + use) for use in (b"encrypt", b"start", b"sign")
        )
        return cls(encrypt[: cbc.BLOCK], start, sign)


def index_name(prefix: str) -> str:
    """Return the file name of a bundle's index."""
    return f"{prefix}.index"


def index_size(blocks: int) -> int:
    """Return the size of the index of a bundle of so many blocks, in bytes."""
    return _AROUND + cbc.sealed_size(blocks * _ENTRY)


def largest_index(sealed_size: int) -> int:
    """Return how large an index may be that is read, in bytes, if its parts have this size.

    Deflate makes a thousandth of what is all zeros: a block of 1 MiB has 1 KiB, and 8 bytes here.
    """
    return min(sealed_size // 64 + 256, LARGEST)


def parts_digest(digests: Iterable[str]) -> bytes:
    """Return what tells the parts of one bundle from those of all others, 32 bytes.

    Args:
        digests: the SHA-1 of each part, in lowercase hex.
    """
    return hashlib.sha256("".join(digests).encode()).digest()


def seal_index(index: IndexDump, secret: Secret) -> bytes:
    """Return the file of a bundle's index, which must be complete."""
    ends, keys = array("Q", index.offsets), _Keys.of(secret)
    lengths = (stop - start for start, stop in pairwise(ends))
    entries = zip(lengths, array("I", index.crcs), strict=True)
    plain = _little(array("I", chain.from_iterable(entries))).tobytes()
    start = _hmac(keys.start, plain)[: cbc.BLOCK]
    sealed = cbc.finish(keys.encrypt, CbcState(start), plain)
    body = b"".join((_HEAD, parts_digest(index.part_digests), start, sealed))
    return body + _hmac(keys.sign, body)


def open_index(data: bytes, secret: Secret, digests: Iterable[str], sealed_size: int) -> BlockTable:
    """Return what the bytes of an index say of the bundle with these parts.

    Args:
        data: the whole file.
        secret: of the bundle.
        digests: the SHA-1 of each part, in lowercase hex.
        sealed_size: bytes of all parts together.

    Raises:
        ValueError: it is damaged, of another bundle, or of a version that is not known here.
    """
    keys = _Keys.of(secret)
    _require_version(data)
    if not belongs_to(data, digests):
        raise ValueError("it is of another bundle, or is damaged")
    body, signature = data[:-_HASH], data[-_HASH:]
    if not hmac.compare_digest(_hmac(keys.sign, body), signature):
        raise ValueError("it is damaged or cut short (its checksum does not fit)")
    lengths, crcs = _entries(body[HEAD:], keys)
    table = BlockTable(array("Q", accumulate(lengths, initial=len(GZIP_HEADER))), crcs)
    # Only who has the key can have made it. Even so it must not lead astray, nor take memory.
    if cbc.sealed_size(table.gzip_size) != sealed_size or max(lengths, default=0) > _LONGEST_BLOCK:
        raise ValueError("it does not fit the size of the parts")
    return table


def is_index(head: bytes) -> bool:
    """Return whether what begins so is an index, of any version."""
    return head.startswith(MAGIC)


def belongs_to(head: bytes, digests: Iterable[str]) -> bool:
    """Return whether the index that begins so says that it is of the bundle with these parts."""
    return head[len(_HEAD) : HEAD] == parts_digest(digests)


def _require_version(data: bytes) -> None:
    first, _, _ = data[: 2 * len(_HEAD)].partition(b"\n")
    number = first.removeprefix(MAGIC)
    if not is_index(first) or not number.isdigit():
        raise ValueError("it is no index of bundlefs, or is damaged")
    if int(number) != VERSION:
        raise ValueError(f"it is of version {int(number)}; this bundlefs knows version {VERSION}")


def _entries(data: bytes, keys: _Keys) -> tuple[Sequence[int], Sequence[int]]:
    """Return the lengths and the CRCs of all blocks, from what is authentic."""
    start, sealed = data[: cbc.BLOCK], data[cbc.BLOCK :]
    if len(sealed) % cbc.BLOCK:
        raise ValueError("it is no whole number of units")
    plain = cbc.decrypt(keys.encrypt, start, sealed)
    plain = plain[: len(plain) - cbc.padding(plain[-cbc.BLOCK :])]
    if len(plain) % _ENTRY:
        raise ValueError("it is no whole number of blocks")
    numbers = _little(array("I", plain))
    return numbers[::2], numbers[1::2]


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _little(numbers: "array[int]") -> "array[int]":
    """Return numbers in little-endian order as those of this machine, or the reverse."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
