"""Streams sealed in parts that are damaged, or made to do harm: one clear error each.

Every case is run through `verify` and `unbundle`, and leaves nothing behind. What of a tar
stream's head is refused and why is for the readers' own tests; here it is one of each.
"""

import gzip
import tarfile

import pytest

from tests.interop.back import MIB, leftovers, peak_memory
from tests.interop.damaged import SIMPLE, refused_by_all
from tests.mount.commands import attempt
from tests.support import bundles, images
from tests.support.bundles import Made, Stages, Workshop
from tests.support.keys import KeyPair
from tests.support.tools import run


def sealed(workshop: Workshop, compressed: bytes, size: int, *, tar: bytes = b"") -> Made:
    """Seal what somebody made of a tar stream; the manifest says that the image has `size`."""
    stages = Stages(*(workshop.folder / name for name in ("disk", "tar", "gz")))
    images.sparse_image(stages.image, size, {})
    stages.tar.write_bytes(tar)
    stages.compressed.write_bytes(compressed)
    return workshop.seal(stages, SIMPLE)


def archived(*members: tuple[tarfile.TarInfo, bytes], end: int = 1024) -> bytes:
    """Return a tar stream of members, each with its content."""
    pieces = []
    for info, content in members:
        info.size = len(content) if info.isreg() else 0
        pieces.append(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    return b"".join(pieces) + bytes(end)


def entry(kind: bytes = tarfile.REGTYPE, name: str = "image", to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


CONTENT = images.text(100_000)
WHOLE = archived((entry(), CONTENT))

MEMBERS = {
    "two files": (archived((entry(), CONTENT), (entry(name="more"), b"x")), "several members"),
    "a file and a link": (
        archived((entry(), CONTENT), (entry(tarfile.SYMTYPE, "link", "/etc"), b"")),
        "several members",
    ),
    "a symbolic link": (archived((entry(tarfile.SYMTYPE, to="/etc/passwd"), b"")), "symbolic link"),
    "a hard link": (archived((entry(tarfile.LNKTYPE, to="/etc/passwd"), b"")), "hard link"),
    "a device": (archived((entry(tarfile.BLKTYPE), b"")), "device"),
    "a FIFO": (archived((entry(tarfile.FIFOTYPE), b"")), "pipe"),
    "a folder": (archived((entry(tarfile.DIRTYPE), b"")), "directory"),
    "nothing": (bytes(10240), "empty"),
    "no tar": (images.text(10240), "no tar"),
    "half a header": (WHOLE[:300], "cut short"),
    "a member cut short": (WHOLE[:50_000], "cut short"),
    "zeros without end": (WHOLE + bytes(17 * MIB), "zeros"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_that_is_no_image(name: str, own_workshop: Workshop, user_keys: KeyPair) -> None:
    tar, says = MEMBERS[name]
    made = sealed(own_workshop, gzip.compress(tar, 1), len(CONTENT), tar=tar)
    assert says in refused_by_all(made, user_keys)


def test_a_member_name_leads_nowhere(own_workshop: Workshop, user_keys: KeyPair) -> None:
    tar = archived((entry(name="../../../../tmp/evil"), CONTENT))
    made = sealed(own_workshop, gzip.compress(tar), len(CONTENT), tar=tar)
    out = own_workshop.folder / "out"
    out.mkdir()
    words = ("unbundle", made.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert attempt(*words).code == 0
    assert leftovers(out) == ["disk"]
    assert (out / "disk").read_bytes() == CONTENT


@pytest.mark.parametrize("change", [-1, 1, -512, 512, 1 << 40])
def test_a_size_that_is_not_the_images(
    change: int, own_workshop: Workshop, user_keys: KeyPair
) -> None:
    made = sealed(own_workshop, gzip.compress(WHOLE), len(CONTENT), tar=WHOLE)
    made.rewrite(user_keys, size=len(CONTENT) + change)
    reason = refused_by_all(made, user_keys)
    assert f"{len(CONTENT)} bytes" in reason
    assert str(len(CONTENT) + change) in reason


def wrong_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


GZIP = gzip.compress(WHOLE)
STREAMS = {
    "no gzip": (WHOLE, "not gzip"),
    "gzip without its end": (GZIP[:-8], "ends too early"),
    "gzip without half its end": (GZIP[:-4], "ends too early"),
    "half a gzip": (GZIP[: len(GZIP) // 2], "ends too early"),
    "its head alone": (GZIP[:10], "ends too early"),
    "a wrong checksum": (wrong_checksum(GZIP), "damaged"),
    "rubbish inside": (GZIP[:400] + bytes(400) + GZIP[800:], "damaged"),
    "rubbish behind": (GZIP + b"rubbish that is no gzip member", "damaged"),
    "half a member behind": (GZIP + GZIP[:20], "ends too early"),
    "nothing": (b"", "not gzip"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_gzip_stream_that_is_none(name: str, own_workshop: Workshop, user_keys: KeyPair) -> None:
    stream, says = STREAMS[name]
    made = sealed(own_workshop, stream, len(CONTENT), tar=WHOLE)
    assert says in refused_by_all(made, user_keys)


def test_a_bundle_of_another_key(own_workshop: Workshop, user_keys: KeyPair) -> None:
    """The user's key opens the manifest, and what is in it opens nothing."""
    made = sealed(own_workshop, GZIP, len(CONTENT), tar=WHOLE)
    made.rewrite(user_keys, user=bundles.wrap(("a" * 32, "b" * 32), user_keys))
    assert "key is not this bundle's" in refused_by_all(made, user_keys)


@pytest.mark.parametrize("size", [1, 15, 17, 4095])
def test_bytes_that_cannot_be_sealed(size: int, bundle: Made, user_keys: KeyPair) -> None:
    data = b"".join(images.noise(size))
    bundle.parts[0].write_bytes(data)
    digest = run(["sha1sum", bundle.parts[0]]).split()[0].decode()
    bundle.rewrite(user_keys, parts=[(bundle.parts[0].name, digest)], bundled_size=size)
    assert "no multiple of 16" in refused_by_all(bundle, user_keys)


# Bombs

BOMB = 16 * 1024  # MiB of zeros


def test_a_bomb_behind_the_image(own_workshop: Workshop, user_keys: KeyPair) -> None:
    stream = bundles.zeros_gzip(WHOLE, BOMB)
    assert len(stream) < 20 * MIB
    made = sealed(own_workshop, stream, len(CONTENT), tar=WHOLE)
    assert "more than 16777216 bytes of zeros" in refused_by_all(made, user_keys)


@pytest.fixture
def huge(own_workshop: Workshop) -> Made:
    """A bundle whose member has 16 GiB, and all of it is there."""
    stream = bundles.zeros_gzip(bundles.member("image", BOMB * MIB), BOMB)
    return sealed(own_workshop, stream, BOMB * MIB)


def test_a_bomb_that_the_manifest_does_not_announce(huge: Made, user_keys: KeyPair) -> None:
    huge.rewrite(user_keys, size=MIB)
    reason = refused_by_all(huge, user_keys)
    assert str(BOMB * MIB) in reason
    assert str(MIB) in reason


def test_memory_is_bounded(own_workshop: Workshop, five_parts: Made, user_keys: KeyPair) -> None:
    stream = bundles.zeros_gzip(bundles.member("image", 1024 * MIB), 1024)
    bomb = sealed(own_workshop, stream, 1024 * MIB)
    key = ("--user-key", user_keys.private)
    _, usual = peak_memory("verify", five_parts.manifest, *key)
    code, peak = peak_memory("verify", bomb.manifest, *key)
    assert code == 1  # the stream has no end
    assert peak < usual + 64 * MIB
