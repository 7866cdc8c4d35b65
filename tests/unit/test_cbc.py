"""CBC with a carried chain against AES in one go."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.codec.cbc import BLOCK, CbcState, advance, finish, sealed_size
from tests.reference import seal
from tests.support.tools import run

KEY, IV = bytes(range(16)), bytes(range(100, 116))
SECRETS = st.binary(min_size=16, max_size=16)
# What the bytes are does not matter to CBC; where the stream is cut does.
LONG = bytes(n % 251 for n in range(1000))
STREAMS = st.binary(max_size=100) | st.integers(0, len(LONG)).map(lambda size: LONG[:size])


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    """Return a stream in pieces, some of them empty."""
    stream = draw(STREAMS)
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    return [stream[start:stop] for start, stop in pairwise([0, *sorted(cuts), len(stream)])]


def sealed_in_pieces(key: bytes, iv: bytes, pieces: list[bytes]) -> bytes:
    state, sealed = CbcState(iv), b""
    for piece in pieces[:-1]:
        more, state = advance(key, state, piece)
        sealed += more
    return sealed + finish(key, state, pieces[-1])


@given(SECRETS, SECRETS, cut_streams())
def test_any_cutting_gives_what_one_go_gives(key: bytes, iv: bytes, pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    sealed = sealed_in_pieces(key, iv, pieces)
    assert sealed == seal(stream, key, iv)
    assert len(sealed) == sealed_size(len(stream))


@given(cut_streams())
def test_a_state_holds_what_did_not_fill_a_block(pieces: list[bytes]) -> None:
    state, done, sealed = CbcState(IV), b"", b""
    for piece in pieces:
        more, state = advance(KEY, state, piece)
        done, sealed = done + piece, sealed + more
        whole = len(done) // BLOCK * BLOCK
        assert len(sealed) == whole
        assert state == CbcState((IV + sealed)[-BLOCK:], done[whole:])


@given(cut_streams(), st.data())
def test_a_stream_can_be_taken_up_at_any_state(pieces: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(pieces)))
    state = CbcState(IV)
    for piece in pieces[:at]:
        state = advance(KEY, state, piece)[1]
    again, behind = advance(KEY, state, b"".join(pieces[at:]))
    start = len(b"".join(pieces[:at])) // BLOCK * BLOCK
    whole = seal(b"".join(pieces), KEY, IV)
    assert again == whole[start : start + len(again)]
    assert bytes(again) + finish(KEY, behind, b"") == whole[start:]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 1000])
def test_openssl_opens_it(size: int) -> None:
    stream = bytes(n % 251 for n in range(size))
    sealed = sealed_in_pieces(KEY, IV, [stream[: size // 3], stream[size // 3 :]])
    command = ["openssl", "enc", "-d", "-aes-128-cbc", "-K", KEY.hex(), "-iv", IV.hex()]
    assert run(command, data=sealed) == stream


def test_what_is_sealed_cannot_be_written_to() -> None:
    sealed, _ = advance(KEY, CbcState(IV), bytes(64))
    assert sealed.readonly


def test_a_state_shows_nothing() -> None:
    state = CbcState(b"CHAINCHAINCHAIN!", b"plaintext")
    for shown in (repr(state), str(state), f"{state}"):
        assert "CHAIN" not in shown
        assert "plaintext" not in shown
        assert state.chain.hex() not in shown
