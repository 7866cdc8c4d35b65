"""Whatever the bytes, the readers of untrusted input answer or refuse, soon and in little memory.

Three sources of bytes: the saved corpus, the same changed at random, and input that is made at
random but in the right shape, so that it gets past the first check.
"""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.codec.tar_headers import LARGEST_IMAGE
from bundlefs.codec.untar import Hole, Member, read_member, trailing_ok
from bundlefs.manifest.read import BundleManifest, parse_manifest

CORPUS = Path(__file__).parent.parent / "corpus"
MIB = 1 << 20

# The name of each saved input and what its error says; None for what is read.
MANIFESTS: dict[str, str | None] = {
    "good-ec2-ami-tools": None,
    "good-euca2ools": None,
    "good-version-3": None,
    "bundled-size-negative": "the bundled size is '-1', and must be a number from 0",
    "cipher-algorithm": "unknown algorithm 'DES': it must be AES-128-CBC",
    "count-absurd": "the count of parts is '4294967296', and must be",
    "count-differs": "it announces 3 parts and lists 2",
    "cut-short": "it is not well-formed XML: no element found",
    "digest-algorithm": "unknown algorithm 'MD5': it must be SHA1",
    "digest-bad": "of its part 1 is no SHA-1: 40 hex digits",
    "element-astray": "the element 'manifest/part', which has no place there",
    "element-twice": "it has a second element 'manifest/image/size' where one may be",
    "empty": "it is not well-formed XML: no element found",
    "entity-bomb": "it has a document type (<!DOCTYPE>), which a manifest may not have",
    "entity-external": "it has a document type (<!DOCTYPE>), which a manifest may not have",
    "hex-bad": "ec2_encrypted_key' 'e1g1' is not hex",
    "hex-odd": "ec2_encrypted_key' 'e1e' is not hex",
    "index-absurd": "a part's index is '99999999999999999999', and must be",
    "index-missing": "it lists 2 parts, but none of the index 1",
    "index-twice": "it has two parts of the index 0",
    "name-absolute": "the part name '/etc/passwd' is no plain file name",
    "name-dots": "the part name '..' is no plain file name",
    "name-line-feed": "the part name 'a\\nb' is no plain file name",
    "name-long": "is no plain file name",
    "name-slash": "the part name 'a/b' is no plain file name",
    "name-traversal": "the part name '../../etc/cron.d/job' is no plain file name",
    "name-twice": "its parts 0 and 1 have the same file name 'image.part.0'",
    "name-zero-byte": "it has a zero byte in it",
    "name-zero-reference": "reference to invalid character number",
    "nested": "its elements are nested more than 16 deep",
    "no-manifest": "it is no manifest but has the element 'html' at its root",
    "size-absurd": "the size is '9223372036854775808', and must be",
    "size-digits": "the size is '999",
    "size-negative": "the size is '-1234', and must be",
    "utf-16": "it is not XML in UTF-8",
    "version-unknown": "its version '2042-01-01' is unknown",
}
TARS: dict[str, str | None] = {
    "good-pax-0.1": None,
    "good-pax-1.0": None,
    "good-plain": None,
    "good-sparse": None,
    "several-members": None,  # what follows the first is seen by `trailing_ok`
    "block-device": "member 'image' is a block device",
    "character-device": "member 'image' is a character device",
    "checksum": "no tar header at 0: its checksum",
    "cut-short": "the archive ends within a header",
    "directory": "member 'image/' is a directory",
    "empty": "the archive ends within a header",
    "hard-link": "member 'image' is a hard link",
    "long-name-absurd": "long name has 8589934591 bytes, and more than 1048576 are not read",
    "named-pipe": "member 'image' is a named pipe",
    "pax-body-absurd": "PAX header has 1099511627776 bytes, and more than 1048576 are not read",
    "pax-map-count-absurd": "the archive's sparse map has more than 4194304 extents",
    "pax-map-no-line": "is followed by no line's end",
    "pax-map-odd": "its last extent has no length",
    "pax-map-out-of-range": "goes beyond the image: 512 bytes at 8192, of an image of 8192",
    "pax-record-length": "PAX header is damaged at 0",
    "pax-size-absurd": "is not a number",
    "pax-size-negative": "size b'-1' is not a number",
    "size-absurd": "size 1180591620717411303424 cannot be",
    "size-negative": "size -1 cannot be",
    "sparse-negative": "sparse offset -512 cannot be",
    "sparse-no-extension": "the archive ends within its sparse map",
    "sparse-out-of-order": "out of order: an extent at 0 follows one that ends at 4608",
    "sparse-out-of-range": "goes beyond the image: 512 bytes at 8192, of an image of 8192",
    "sparse-overlapping": "out of order: an extent at 512 follows one that ends at 1024",
    "sparse-sum-differs": "has 512 bytes of data, and its header 1024",
    "symbolic-link": "member 'image' is a symbolic link",
    "unknown-type": "member 'image' is of the unknown type b'Z'",
    "zeros": "the archive is empty",
}

MANIFEST_BYTES = [(CORPUS / f"manifest/{name}.xml").read_bytes() for name in MANIFESTS]
TAR_BYTES = [(CORPUS / f"tar/{name}.bin").read_bytes() for name in TARS]
TAGS = sorted(
    {
        *("manifest", "version", "bundler", "machine_configuration", "architecture", "kernel_id"),
        *("block_device_mapping", "mapping", "virtual", "device", "product_codes", "product_code"),
        *("image", "name", "user", "type", "digest", "size", "bundled_size", "ec2_encrypted_key"),
        *("user_encrypted_iv", "parts", "part", "filename", "signature", "ancestry", "other"),
    }
)


def manifest_or_refusal(data: bytes) -> BundleManifest | str:
    """Parse; show that what is read keeps its promises, and what is refused is said in a line."""
    try:
        found = parse_manifest(data)
    except BundleError as error:
        return readable(error)
    assert found.parts
    assert 0 < found.size <= LARGEST_IMAGE
    names = [part.filename for part in found.parts]
    assert len(set(names)) == len(names)
    assert all("/" not in name and "\0" not in name and name not in {".", ".."} for name in names)
    assert all(len(bytes.fromhex(part.digest)) == 20 for part in found.parts)
    assert bytes.fromhex((found.ec2_key or "") + (found.user_iv or "") + (found.signature or ""))
    assert found.signed_text in data or found.signed_text.startswith(b"<machine_configuration")
    return found


def member_or_refusal(data: bytes) -> Member | str:
    """Read; show that what is read keeps its promises, and what is refused is said in a line."""
    try:
        found = read_member(lambda offset, length: data[offset : offset + length])
    except BundleError as error:
        return readable(error)
    assert 0 <= found.size <= LARGEST_IMAGE
    runs = found.runs[:1000]
    assert all(run.image.length > 0 and run.image.stop <= found.size for run in runs)
    for one, other in pairwise(runs):
        assert one.image.stop <= other.image.start
        assert one.stream_offset + one.image.length <= other.stream_offset
    assert all(512 <= run.stream_offset <= found.end - run.image.length for run in runs)
    covered = 0
    for piece in found.pieces(Span(0, found.size)):
        assert isinstance(piece, Hole) or piece.image.start == covered
        covered += piece.length if isinstance(piece, Hole) else piece.image.length
    assert covered == found.size
    return found


def readable(error: BundleError) -> str:
    message = str(error)
    assert message.isprintable()
    assert len(message) < 400
    return message


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


# Memory and time: in a process of its own, which is given no more than so much beyond its start

LIMITED = """
import resource, sys
from bundlefs.base.errors import BundleError
from bundlefs.manifest.read import read_manifest

with open("/proc/self/statm") as status:
    size = int(status.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
try:
    print(len(read_manifest(sys.argv[1]).parts))
except BundleError as error:
    print(error)
"""


def limited(path: Path, memory: int) -> str:
    """Read the manifest `path` with at most `memory` bytes and 20 seconds; give what is said."""
    command = [sys.executable, "-c", LIMITED, str(path), str(memory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_manifest_of_100_mb(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    chunk = b"<part index='0'><filename>x</filename></part>" * 23_000
    with path.open("wb") as file:
        file.write(b"<manifest><version>3</version><image><parts count='5'>")
        for _ in range(100):
            file.write(chunk)
    assert path.stat().st_size > 100 * 10**6
    assert "it is larger than the 16777216 bytes" in limited(path, 64 * MIB)


def test_entity_bomb() -> None:
    said = limited(CORPUS / "manifest/entity-bomb.xml", 32 * MIB)
    assert "it has a document type" in said


@pytest.mark.parametrize(
    ("head", "repeated", "tail", "said"),
    [
        (b"<manifest>", b"<a>", b"", "nested more than 16 deep"),
        (b"<manifest><version>", b"&#65;", b"", "'manifest/version' is longer than 1024"),
        (b"<manifest><bundler>", b"x", b"</bundler></manifest>", "version' is missing or empty"),
        (b"<manifest><bundler>", b"<!---->", b"", "more elements or attributes than 100000 parts"),
        (b"<manifest a='", b"x", b"'/>", "'manifest/version' is missing or empty"),
        (b"<!--", b"x", b"-->", "no element found"),
        (b"<", b"x", b"", "unclosed token"),
        (b"<manifest><![CDATA[", b"]", b"", "unclosed CDATA section"),
    ],
)
def test_as_much_as_is_read_of_one_thing(
    tmp_path: Path, head: bytes, repeated: bytes, tail: bytes, said: str
) -> None:
    path = tmp_path / "manifest.xml"
    many = 1_000_000 if repeated == b"<a>" else (16 * MIB - 100) // len(repeated)
    path.write_bytes(head + repeated * many + tail)
    assert said in limited(path, 96 * MIB)


def test_as_many_attributes_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    many = b" ".join(b"a%d=''" % number for number in range(590_000))
    path.write_bytes(b"<manifest " + many + b"/>")
    assert "'manifest/version' is missing" in limited(path, 256 * MIB)


def test_as_many_names_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    many = b"".join(b"<a%d/>" % number for number in range(1_100_000))
    path.write_bytes(b"<manifest>" + many + b"</manifest>")
    assert "'manifest/version' is missing" in limited(path, 256 * MIB)


def test_as_many_parts_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    with path.open("w") as file:
        file.write("<manifest><version>3</version><image><name>i</name><user>u</user>")
        file.write("<size>5</size><parts count='100000'>")
        for index in range(100_000):
            file.write(f"<part index='{index}'><filename>image.part.{index:05}</filename>")
            file.write(f"<digest algorithm='SHA1'>{index:040x}</digest></part>")
        file.write("</parts></image></manifest>")
    assert limited(path, 128 * MIB) == "100000\n"
