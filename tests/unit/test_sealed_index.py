"""An index that travels is taken whole and for its own bundle, or not at all."""

import hmac
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.codec import cbc
from bundlefs.codec.cbc import CbcState
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import Index, IndexDump, Totals
from bundlefs.state.sealed_index import (
    LARGEST,
    BlockTable,
    index_size,
    largest_index,
    open_index,
    seal_index,
)

SECRET = Secret(bytes(range(16)), bytes(range(16, 32)))
DIGESTS = ("a" * 40, "b" * 40)
SIZES = (700_000, 3, 1 << 20, 0)


def dump(sizes: tuple[int, ...] = SIZES, digests: tuple[str, ...] = DIGESTS) -> IndexDump:
    """Return the index of blocks of these sizes."""
    index = Index(SECRET.iv)
    for number, size in enumerate(sizes):
        index.append(size, CbcState(bytes(16), bytes(15)), 0xFFFFFFFF - number)
    index.part_digests.extend(digests)
    index.append_last(5, CbcState(bytes(16)), 7, Totals(1, "c" * 40, sealed_size(sizes)))
    return index.dump()


def sealed_size(sizes: tuple[int, ...] = SIZES) -> int:
    return cbc.sealed_size(10 + sum(sizes) + 5 + 10)


def read(data: bytes, secret: Secret = SECRET) -> BlockTable:
    return open_index(data, secret, DIGESTS, sealed_size())


def test_it_says_where_each_block_is() -> None:
    data = seal_index(dump(), SECRET)
    table = read(data)
    assert len(data) == index_size(5) == index_size(table.blocks)
    spans = [table.gzip_span(block) for block in range(5)]
    assert spans[0].start == 10
    assert [span.length for span in spans] == [*SIZES, 5]
    assert all(before.stop == after.start for before, after in pairwise(spans))
    assert [table.crc(block) for block in range(5)] == [*range(0xFFFFFFFF, 0xFFFFFFFB, -1), 7]
    assert table.gzip_size == spans[-1].stop + 10


def test_it_is_the_same_each_time_and_tells_nothing_without_the_key() -> None:
    data = seal_index(dump(), SECRET)
    assert seal_index(dump(), SECRET) == data
    other = seal_index(dump(), Secret(bytes(16), SECRET.iv))
    assert not set(pieces(data[49:])) & set(pieces(other[49:]))
    assert "a0ae" not in repr(read(data))


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 16] for at in range(0, len(data), 16)]


WHOLE = seal_index(dump(), SECRET)


@given(at=st.integers(0, len(WHOLE) - 1), bits=st.integers(1, 255))
def test_no_byte_can_be_another(at: int, bits: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= bits
    with pytest.raises(ValueError, match=r"^it is "):
        read(bytes(data))


@given(st.one_of(st.integers(0, len(WHOLE) - 1).map(lambda n: WHOLE[:n]), st.binary()))
def test_nothing_else_is_taken_for_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is "):
        read(data)
    with pytest.raises(ValueError, match=r"^it is "):
        read(WHOLE + data + b"\0")


@pytest.mark.parametrize(
    ("digests", "secret", "size", "why"),
    [
        (DIGESTS[::-1], SECRET, sealed_size(), "of another bundle"),
        (DIGESTS[:1], SECRET, sealed_size(), "of another bundle"),
        (DIGESTS, Secret(bytes(16), SECRET.iv), sealed_size(), "checksum does not fit"),
        (DIGESTS, SECRET, sealed_size() + 16, "does not fit the size of the parts"),
    ],
)
def test_it_is_for_its_own_bundle(
    digests: tuple[str, ...], secret: Secret, size: int, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        open_index(WHOLE, secret, digests, size)


def test_one_of_a_later_version_says_so() -> None:
    with pytest.raises(ValueError, match="version 2; this bundlefs knows version 1"):
        read(WHOLE.replace(b"index 1\n", b"index 2\n", 1))


def signed(plain: bytes) -> bytes:
    """Return an index with these entries, as somebody who has the key can make it."""
    key = hmac.digest(SECRET.key, b"bundlefs-index encrypt", "sha256")[:16]
    body = WHOLE[:65] + bytes(cbc.finish(key, CbcState(WHOLE[49:65]), plain))
    return body + hmac.digest(
        hmac.digest(SECRET.key, b"bundlefs-index sign", "sha256"), body, "sha256"
    )


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        bytes(12),
        b"\xff\xff\xff\xff\0\0\0\0",
        ((3 << 20) - 20).to_bytes(4, "little") + bytes(4),
    ],
)
def test_not_even_who_has_the_key_leads_astray(plain: bytes) -> None:
    """A block of a size that no block has would be taken into memory at once."""
    with pytest.raises(ValueError, match=r"fit|no whole number"):
        open_index(signed(plain), SECRET, DIGESTS, (3 << 20) + 16)


def test_the_largest_is_as_large_as_an_image_may_be() -> None:
    assert index_size(17 << 20) < LARGEST


@pytest.mark.parametrize("blocks", [1, 2, 1000, 10_000])
def test_that_of_zeros_is_none_too_large(blocks: int) -> None:
    """Nothing is smaller than zeros, of which each level makes over 1,000 bytes for a MiB."""
    assert index_size(blocks) <= largest_index(blocks * 1000)
