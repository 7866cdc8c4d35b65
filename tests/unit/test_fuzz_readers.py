"""Whatever the bytes, the readers of untrusted input answer or refuse, in a line.

Three sources of bytes: the saved corpus, the same changed at random, and input that is made at
random but in the right shape, so that it gets past the first check.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.codec.untar import Member, trailing_ok
from bundlefs.manifest.read import BundleManifest
from tests.unit.corpus import (
    CORPUS,
    MANIFEST_BYTES,
    MANIFESTS,
    TAR_BYTES,
    TARS,
    manifest_or_refusal,
    member_or_refusal,
)

TAGS = sorted(
    {
        *("manifest", "version", "bundler", "machine_configuration", "architecture", "kernel_id"),
        *("block_device_mapping", "mapping", "virtual", "device", "product_codes", "product_code"),
        *("image", "name", "user", "type", "digest", "size", "bundled_size", "ec2_encrypted_key"),
        *("user_encrypted_iv", "parts", "part", "filename", "signature", "ancestry", "other"),
    }
)


def test_tables_name_all_that_is_saved() -> None:
    assert {path.stem for path in CORPUS.glob("manifest/*")} == MANIFESTS.keys()
    assert {path.name.removesuffix(".bin") for path in CORPUS.glob("tar/*")} == TARS.keys()


@pytest.mark.parametrize("name", MANIFESTS)
def test_saved_manifests(name: str) -> None:
    found = manifest_or_refusal((CORPUS / f"manifest/{name}.xml").read_bytes())
    reason = MANIFESTS[name]
    assert isinstance(found, BundleManifest) if reason is None else reason in str(found)


@pytest.mark.parametrize("name", TARS)
def test_saved_tar_heads(name: str) -> None:
    found = member_or_refusal((CORPUS / f"tar/{name}.bin").read_bytes())
    reason = TARS[name]
    assert isinstance(found, Member) if reason is None else reason in str(found)


def test_saved_archive_with_several_members() -> None:
    data = (CORPUS / "tar/several-members.bin").read_bytes()
    found = member_or_refusal(data)
    assert isinstance(found, Member)
    assert not trailing_ok(data[found.end :])


# Changed at random

changes = st.lists(
    st.tuples(
        st.integers(0, 4096),  # where
        st.integers(0, 40),  # how many bytes go
        st.binary(max_size=8)
        | st.sampled_from([b"<", b">", b"</image>", b"\0", b"-1", b"\xff" * 8]),
    ),
    max_size=6,
)


def change(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for where, length, new in edits:
        at = where % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    return data


def overwrite(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Change bytes but not lengths, and correct the checksum of each block that has one."""
    changed = bytearray(data)
    for where, _, new in edits:
        at = where % (len(data) + 1)
        changed[at : at + len(new)] = new[: len(data) - at]
    for at in range(0, len(changed) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            changed[at + 148 : at + 156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(MANIFEST_BYTES), changes)
def test_changed_manifests(data: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    manifest_or_refusal(change(data, edits))


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(TAR_BYTES), changes, st.integers(0, 1 << 20))
def test_changed_tar_heads(data: bytes, edits: list[tuple[int, int, bytes]], stop: int) -> None:
    member_or_refusal(overwrite(data, edits)[:stop])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_noise(data: bytes) -> None:
    manifest_or_refusal(data)
    member_or_refusal(data)


# Made at random, in the right shape

words = st.sampled_from(
    ["", " 5 ", "0", "-1", "a0" * 20, "SHA1", "image", "3", "UNSIGNED", "&#65;"]
)
attributes = st.sampled_from(
    ["", " count='1'", " index='0'", " index='1'", " algorithm='SHA1'", " algorithm='AES-128-CBC'"]
)


def element(bodies: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("<{0}{1}>{2}</{0}>".format, st.sampled_from(TAGS), attributes, bodies)


elements = st.recursive(
    element(words), lambda inner: element(st.lists(inner, max_size=3).map("".join)), max_leaves=12
)


@settings(max_examples=200, deadline=None)
@given(st.lists(elements, max_size=5), st.sampled_from(["<signature>", "<image>", "</part>"]))
def test_elements_of_a_manifest_at_random_places(extra: list[str], before: str) -> None:
    body = "".join(extra)
    good = MANIFEST_BYTES[0].decode()
    manifest_or_refusal(f"<manifest>{body}</manifest>".encode())
    manifest_or_refusal(good.replace(before, f"{body}{before}", 1).encode())


numbers = st.one_of(
    st.integers(0, 5000).map(lambda number: b"%011o\0" % number),
    st.integers(-(1 << 70), 1 << 70).map(lambda n: (n % (1 << 96) | 1 << 95).to_bytes(12, "big")),
    st.binary(min_size=12, max_size=12),
)
keys = st.sampled_from(
    [
        *("path", "size", "comment", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"),
        *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.offset", "GNU.sparse.numbytes"),
        *("GNU.sparse.numblocks", "GNU.sparse.name"),
    ]
)
values = st.one_of(
    st.sampled_from([b"0", b"1", b"512", b"4096", b"0,512", b"0,512,1024,0", b"-1", b"9" * 30]),
    st.binary(max_size=20),
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header with a good checksum, and a body of PAX records or of lines where it has one."""
    kind = draw(st.sampled_from([b"0", b"0", b"S", b"x", b"g", b"L", b"K", b"\0", b"7", b"2"]))
    body = b""
    if kind in b"xg":
        for key, value in draw(st.lists(st.tuples(keys, values), max_size=6)):
            text = b" " + key.encode() + b"=" + value + b"\n"
            body += str(len(text) + len(str(len(text) + 2))).encode() + text
    elif draw(st.booleans()):
        body = b"".join(b"%d\n" % number for number in draw(st.lists(st.integers(0, 2000))))
    size = b"%011o\0" % len(body) if body else draw(numbers)
    block = bytearray(512)
    block[:5] = b"image"
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar  \0"
    sparse = b"".join(draw(st.lists(numbers, max_size=8)))
    block[386 : 386 + len(sparse)] = sparse
    block[482] = draw(st.booleans())
    block[483:495] = draw(numbers)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + body + bytes(-len(body) % 512)


@settings(max_examples=600, deadline=None)
@given(st.lists(headers(), max_size=5), st.binary(max_size=600))
def test_headers_at_random(made: list[bytes], rest: bytes) -> None:
    member_or_refusal(b"".join(made) + rest)
