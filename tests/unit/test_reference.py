"""The reference is right: its undoing is its inverse, and it has the format's sizes.

An oracle that is wrong makes every test against it worthless. Stock tools open
its bundles in `tests/interop/test_servers.py`.
"""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import reference

KEY = bytes(range(16))
IV = bytes(range(16, 32))
RECORD = 10240


@given(image=st.binary(max_size=40_000), mtime=st.integers(0, 2**33 - 1))
def test_the_way_back_is_the_inverse(image: bytes, mtime: int) -> None:
    made = reference.bundle(image, KEY, IV, mtime=mtime)
    tar = reference.unbundle(made.parts, KEY, IV)
    assert tar == made.tar
    assert reference.untar(tar) == image


@pytest.mark.parametrize(
    ("size", "records"),
    [(0, 1), (1, 1), (511, 1), (512, 1), (8704, 1), (8705, 2), (18944, 2), (18945, 3)],
)
def test_a_tar_is_whole_records(size: int, records: int) -> None:
    tar = reference.tar_stream(b"x" * size, "image", 0)
    assert len(tar) == records * RECORD
    assert tar[512 : 512 + size] == b"x" * size
    assert not any(tar[512 + size :])


def test_the_header_is_gnu_root_and_0644() -> None:
    header = reference.tar_stream(b"x", "image", 1)[:512]
    assert header[:6] == b"image\0"
    assert header[100:108] == b"0000644\0"
    assert header[108:124] == b"0000000\0" * 2
    assert header[257:265] == b"ustar  \0"
    assert header[265:297].rstrip(b"\0") == header[297:329].rstrip(b"\0") == b"root"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32])
def test_sealing_always_pads(size: int) -> None:
    sealed = reference.seal(b"x" * size, KEY, IV)
    assert len(sealed) == size - size % 16 + 16
    assert reference.unseal([sealed], KEY, IV) == b"x" * size


def test_aes_is_the_one_of_nist() -> None:
    # SP 800-38A, F.2.1: CBC-AES128.Encrypt, the first block
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    sealed = reference.seal(plain, key, bytes(range(16)))
    assert sealed[:16].hex() == "7649abac8119b246cee98e9b12e9197d"


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1]), (7, [7]), (8, [7, 1]), (14, [7, 7]), (15, [7, 7, 1])]
)
def test_parts_are_full_but_the_last(size: int, sizes: list[int]) -> None:
    parts = reference.cut(b"x" * size, 7)
    assert [len(part) for part in parts] == sizes


def test_a_second_member_is_refused() -> None:
    two = reference.deflate(b"one", 6) + reference.deflate(b"two", 6)
    with pytest.raises(AssertionError, match="follows the gzip member"):
        reference.inflate(two)


def test_a_cut_member_is_refused() -> None:
    with pytest.raises(AssertionError, match="does not end"):
        reference.inflate(reference.deflate(b"one", 6)[:-1])


def test_a_damaged_member_is_refused() -> None:
    damaged = bytearray(reference.deflate(b"one", 6))
    damaged[-8] ^= 1
    with pytest.raises(zlib.error):
        reference.inflate(bytes(damaged))
