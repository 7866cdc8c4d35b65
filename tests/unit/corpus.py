"""The saved inputs of the readers, what each is refused with, and what holds of any answer."""

from itertools import pairwise
from pathlib import Path

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.codec.tar_headers import LARGEST_IMAGE
from bundlefs.codec.untar import Hole, Member, read_member
from bundlefs.manifest.read import BundleManifest, parse_manifest

CORPUS = Path(__file__).parent.parent / "corpus"

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
