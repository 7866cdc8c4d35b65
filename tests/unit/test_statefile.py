"""The bytes of a state file: what goes in comes out, and nothing else ever does."""

import hashlib
import json
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state.format import VERSION, StateContents
from bundlefs.state.index import IndexDump, Totals

KEY, IV = bytes(range(16)), bytes(range(100, 116))


def index(blocks: int, totals: Totals | None = None) -> IndexDump:
    """Give the index of a pass that got so far; the numbers mean nothing here."""
    return IndexDump(
        offsets=array("Q", range(10, 10 + blocks + 1)).tobytes(),
        crcs=array("I", range(blocks)).tobytes(),
        states=bytes(32 * (blocks + 1)),
        part_digests=tuple(hashlib.sha1(bytes([n])).hexdigest() for n in range(blocks // 10)),
        totals=totals,
    )


CONTENTS = StateContents(
    image="/data/disk.img",
    terms={"prefix": "image", "codec": "libdeflate-6"},
    recipients={"image.manifest.xml": "aa:bb"},
    secret=Secret(KEY, IV),
    created_ns=1_700_000_000_123_456_789,
    extents=(Span(0, 4096), Span(8192, 9000)),
    index=index(25, Totals(7, "d" * 40, 1234)),
    manifests={"image.manifest.xml": "<?xml version='1.0'?>\n<manifest/>"},
)
FILE = CONTENTS.encode()

texts = st.dictionaries(st.text(), st.text(), max_size=3)
edges = st.lists(st.integers(0, 2**63), max_size=8, unique=True).map(sorted)
spans = edges.map(lambda all_: tuple(map(Span, all_[:-1:2], all_[1::2])))


@given(
    terms=texts,
    manifests=texts,
    extents=st.none() | spans,
    blocks=st.integers(0, 40),
    totals=st.none() | st.builds(Totals, st.integers(0, 2**32 - 1), st.text(), st.integers(0)),
)
def test_what_goes_in_comes_out(
    terms: dict[str, str],
    manifests: dict[str, str],
    extents: tuple[Span, ...] | None,
    blocks: int,
    totals: Totals | None,
) -> None:
    made = index(blocks, totals)
    contents = replace(CONTENTS, terms=terms, manifests=manifests, extents=extents, index=made)
    assert StateContents.decode(contents.encode()) == contents


def test_no_hole_and_no_notion_of_holes_are_not_the_same() -> None:
    for extents in (None, ()):
        contents = replace(CONTENTS, extents=extents)
        assert StateContents.decode(contents.encode()).extents == extents


def test_cut_short_at_every_length() -> None:
    for length in range(len(FILE)):
        with pytest.raises(ValueError, match=r"damaged|version"):
            StateContents.decode(FILE[:length])


def test_every_single_bit() -> None:
    for bit in range(8 * len(FILE)):
        garbled = bytearray(FILE)
        garbled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"damaged|version"):
            StateContents.decode(bytes(garbled))


@given(st.integers(0, len(FILE)), st.integers(0, len(FILE)), st.binary(max_size=100))
def test_a_piece_replaced(start: int, length: int, piece: bytes) -> None:
    garbled = FILE[:start] + piece + FILE[start + length :]
    if garbled != FILE:
        with pytest.raises(ValueError, match=r"damaged|version|digits"):
            StateContents.decode(garbled)


def sealed(body: bytes) -> bytes:
    """Give a file whose checksum is right."""
    return body + hashlib.sha256(body).digest()


def test_of_a_future_version() -> None:
    later = FILE.replace(b"state %d\n" % VERSION, b"state %d\n" % (VERSION + 1), 1)
    for data in (later, sealed(later[:-32]), b"bundlefs-state 2\nanything"):
        with pytest.raises(
            ValueError, match=f"of version 2; this bundlefs knows version {VERSION}"
        ):
            StateContents.decode(data)


@pytest.mark.parametrize("name", ["image", "terms", "key", "created_ns", "totals", "arrays"])
def test_a_field_is_missing_though_the_checksum_is_right(name: str) -> None:
    magic, line, arrays = FILE[:-32].split(b"\n", 2)
    header = json.loads(line)
    del header[name]
    with pytest.raises(KeyError, match=name):
        StateContents.decode(sealed(b"\n".join((magic, json.dumps(header).encode(), arrays))))


def test_no_repr_shows_the_secret() -> None:
    shown = repr(CONTENTS) + repr(CONTENTS.secret) + repr(CONTENTS.index)
    assert "/data/disk.img" in shown
    for value in (KEY, IV):
        assert value.hex() not in shown
        assert repr(value)[2:-1] not in shown
