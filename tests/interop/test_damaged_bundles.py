"""Bundles that are damaged, or made to do harm: one clear error each, and nothing left behind.

Every case is run through `verify` and `unbundle`. What of a manifest's and a tar
stream's head is refused and why is for the readers' own tests; here it is one of each.
"""

import gzip
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.back import MIB, leftovers, peak_memory, refused, report, within
from tests.mount.commands import attempt
from tests.support import bundles, images
from tests.support.bundles import Bundler, Made, Stages, Workshop
from tests.support.keys import KeyPair
from tests.support.tools import run

PART = MIB
SIMPLE = Bundler(bundles.gnu_tar("--format=gnu"), ("gzip", "-1"), part_size=PART)
DAMAGED = 2  # the part that is damaged where any would do


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> Made:
    """A bundle of five parts, the last of them short."""
    workshop = Workshop(tmp_path_factory.mktemp("made"), user_keys, region_keys)
    image = images.random_image(workshop.folder / "disk", 4 * MIB + 12345)
    made = workshop.make(image, SIMPLE)
    assert len(made.parts) == 5
    return made


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Made:
    """A copy of it, to be damaged."""
    return made.copy(tmp_path / "bundle")


@pytest.fixture
def workshop(tmp_path: Path, user_keys: KeyPair, region_keys: KeyPair) -> Workshop:
    return Workshop(tmp_path, user_keys, region_keys)


def refused_by_all(made: Made, user: KeyPair) -> str:
    """Have the bundle refused by `verify` and `unbundle`, for one reason; gives the reason."""
    key = ("--user-key", user.private)
    out = made.manifest.parent.parent / "out"
    out.mkdir()
    line = refused("unbundle", made.manifest, *key, "-o", out / "disk")
    assert leftovers(out) == []
    code, shown, err = within("verify", made.manifest, *key)
    assert (code, err) == (1, ""), err
    failed = [says for outcome, says in report(shown).values() if outcome == "FAILED"]
    assert len(failed) == 1, shown
    # where several parts are damaged, verify names all
    assert f"bundlefs: {failed[0]}".startswith(line)
    return failed[0]


# Parts


def flip(made: Made, part: int = DAMAGED) -> None:
    data = bytearray(made.parts[part].read_bytes())
    data[len(data) // 3] ^= 0x10
    made.parts[part].write_bytes(data)


def swap(made: Made) -> None:
    first, second, spare = made.parts[1], made.parts[2], made.parts[2].with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def replace_by(make: Callable[[Path], object]) -> Callable[[Made], None]:
    """Return the damage that puts something else in a part's place."""

    def damage(made: Made) -> None:
        made.parts[DAMAGED].unlink()
        make(made.parts[DAMAGED])

    return damage


def resize(part: int, change: int) -> Callable[[Made], None]:
    """Return the damage that cuts a part, or makes it longer by zeros."""

    def damage(made: Made) -> None:
        os.truncate(made.parts[part], made.parts[part].stat().st_size + change)

    return damage


PARTS: dict[str, tuple[Callable[[Made], object], str]] = {
    "missing": (lambda made: made.parts[DAMAGED].unlink(), r"part \S+\.02: No such file"),
    "short": (resize(DAMAGED, -1), rf"image\.part\.02 has {PART - 1} bytes"),
    "long": (resize(DAMAGED, 1), rf"image\.part\.02 has {PART + 1} bytes"),
    "emptied": (resize(DAMAGED, -PART), r"image\.part\.02 has 0 bytes"),
    "the last cut by a block": (resize(-1, -16), r"image\.part\.04 has \d+ bytes"),
    "the last cut by a byte": (resize(-1, -1), r"image\.part\.04 has \d+ bytes"),
    "the first short": (resize(0, -4096), r"image\.part\.00 has"),
    "bit-flipped": (flip, r"part image\.part\.02 is damaged: its SHA-1 is \w{40}, .*\w{40}"),
    "the first bit-flipped": (lambda made: flip(made, 0), r"part image\.part\.00 is damaged"),
    "the last bit-flipped": (lambda made: flip(made, 4), r"part image\.part\.04 is damaged"),
    "swapped": (swap, r"part image\.part\.01 is damaged \(it has the bytes of image\.part\.02\)"),
    "a FIFO": (replace_by(os.mkfifo), r"part \S+\.02 is not a plain file"),
    "a folder": (replace_by(Path.mkdir), r"part \S+\.02 is not a plain file"),
    "a device": (
        replace_by(lambda path: path.symlink_to("/dev/zero")),
        r"part \S+\.02 is not a plain file",
    ),
    "a loop": (
        replace_by(lambda path: path.symlink_to(path.name)),
        r"part \S+\.02: Too many levels of symbolic links",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_part_is_named(name: str, bundle: Made, user_keys: KeyPair) -> None:
    damage, says = PARTS[name]
    damage(bundle)
    reason = refused_by_all(bundle, user_keys)
    assert re.search(says, reason), reason


@pytest.mark.parametrize("name", ["short", "emptied", "the last cut by a byte", "swapped"])
def test_it_is_named_without_a_bundled_size(name: str, bundle: Made, user_keys: KeyPair) -> None:
    PARTS[name][0](bundle)
    bundle.rewrite(user_keys, bundled_size=None)
    reason = refused_by_all(bundle, user_keys)
    wrong = {"swapped": 1, "the last cut by a byte": 4}.get(name, DAMAGED)
    assert bundle.parts[wrong].name in reason


@pytest.mark.parametrize("wrong", [0, 1])
def test_of_two_parts_the_short_one_is_named(
    workshop: Workshop, user_keys: KeyPair, wrong: int
) -> None:
    image = images.random_image(workshop.folder / "disk", MIB + 5000)
    made = workshop.make(image, SIMPLE)
    assert len(made.parts) == 2
    resize(wrong, -16)(made)
    assert made.parts[wrong].name in refused_by_all(made, user_keys)


def test_a_bundled_size_that_no_part_is_to_blame_for(bundle: Made, user_keys: KeyPair) -> None:
    size = bundle.facts.bundled_size or 0
    bundle.rewrite(user_keys, bundled_size=size + 1)
    reason = refused_by_all(bundle, user_keys)
    assert str(size + 1) in reason
    assert "image.part" not in reason


def test_a_part_without_a_name_of_its_own_is_no_damage(
    bundle: Made, tmp_path: Path, user_keys: KeyPair
) -> None:
    """Symbolic links to files are what a bucket that is mirrored by others may hold."""
    elsewhere = tmp_path / "elsewhere"
    bundle.parts[1].rename(elsewhere)
    bundle.parts[1].symlink_to(elsewhere)
    assert attempt("verify", bundle.manifest, "--user-key", user_keys.private).code == 0


def test_an_empty_part_in_the_middle_is_no_damage(bundle: Made, user_keys: KeyPair) -> None:
    empty = bundle.manifest.with_name("empty")
    empty.touch()
    nothing = run(["sha1sum", empty]).split()[0].decode()
    parts = list(bundle.facts.parts)
    bundle.rewrite(user_keys, parts=[*parts[:2], (empty.name, nothing), *parts[2:]])
    words = ("unbundle", bundle.manifest, "--user-key", user_keys.private, "-o")
    assert attempt(*words, bundle.manifest.with_name("disk")).code == 0


# What is sealed in the parts


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
def test_an_archive_that_is_no_image(name: str, workshop: Workshop, user_keys: KeyPair) -> None:
    tar, says = MEMBERS[name]
    made = sealed(workshop, gzip.compress(tar, 1), len(CONTENT), tar=tar)
    assert says in refused_by_all(made, user_keys)


def test_a_member_name_leads_nowhere(workshop: Workshop, user_keys: KeyPair) -> None:
    tar = archived((entry(name="../../../../tmp/evil"), CONTENT))
    made = sealed(workshop, gzip.compress(tar), len(CONTENT), tar=tar)
    out = workshop.folder / "out"
    out.mkdir()
    words = ("unbundle", made.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert attempt(*words).code == 0
    assert leftovers(out) == ["disk"]
    assert (out / "disk").read_bytes() == CONTENT


@pytest.mark.parametrize("change", [-1, 1, -512, 512, 1 << 40])
def test_a_size_that_is_not_the_images(change: int, workshop: Workshop, user_keys: KeyPair) -> None:
    made = sealed(workshop, gzip.compress(WHOLE), len(CONTENT), tar=WHOLE)
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
def test_a_gzip_stream_that_is_none(name: str, workshop: Workshop, user_keys: KeyPair) -> None:
    stream, says = STREAMS[name]
    made = sealed(workshop, stream, len(CONTENT), tar=WHOLE)
    assert says in refused_by_all(made, user_keys)


def test_a_bundle_of_another_key(workshop: Workshop, user_keys: KeyPair) -> None:
    """The user's key opens the manifest, and what is in it opens nothing."""
    made = sealed(workshop, GZIP, len(CONTENT), tar=WHOLE)
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


def test_a_bomb_behind_the_image(workshop: Workshop, user_keys: KeyPair) -> None:
    stream = bundles.zeros_gzip(WHOLE, BOMB)
    assert len(stream) < 20 * MIB
    made = sealed(workshop, stream, len(CONTENT), tar=WHOLE)
    assert "more than 16777216 bytes of zeros" in refused_by_all(made, user_keys)


@pytest.fixture
def huge(workshop: Workshop) -> Made:
    """A bundle whose member has 16 GiB, and all of it is there."""
    stream = bundles.zeros_gzip(bundles.member("image", BOMB * MIB), BOMB)
    return sealed(workshop, stream, BOMB * MIB)


def test_a_bomb_that_the_manifest_does_not_announce(huge: Made, user_keys: KeyPair) -> None:
    huge.rewrite(user_keys, size=MIB)
    reason = refused_by_all(huge, user_keys)
    assert str(BOMB * MIB) in reason
    assert str(MIB) in reason


def test_memory_is_bounded(workshop: Workshop, made: Made, user_keys: KeyPair) -> None:
    stream = bundles.zeros_gzip(bundles.member("image", 1024 * MIB), 1024)
    bomb = sealed(workshop, stream, 1024 * MIB)
    key = ("--user-key", user_keys.private)
    _, usual = peak_memory("verify", made.manifest, *key)
    code, peak = peak_memory("verify", bomb.manifest, *key)
    assert code == 1  # the stream has no end
    assert peak < usual + 64 * MIB


# Manifests

MANIFESTS: dict[str, tuple[Callable[[str], str], str]] = {
    "an entity bomb": (
        lambda text: text.replace(
            "<manifest>", '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><manifest>', 1
        ),
        "document type",
    ),
    "100 MB": (lambda text: text.replace("<image>", "<image>" + " " * 100_000_000), "larger"),
    "nested": (lambda text: text.replace("<image>", "<image>" + "<a>" * 5000), "nested"),
    "a path": (lambda text: text.replace("image.part.02", "../part"), "plain file name"),
    "an absolute path": (lambda text: text.replace("image.part.02", "/etc/passwd"), "plain file"),
    "a dot": (lambda text: text.replace("image.part.02", ".."), "plain file name"),
    "a control character": (lambda text: text.replace("image.part.02", "a&#10;b"), "plain file"),
    "a NUL": (lambda text: text.replace("image.part.02", "a\0b"), "zero byte"),
    "an index twice": (lambda text: text.replace("index='2'", "index='1'"), "two parts"),
    "an index that is missing": (lambda text: text.replace("index='2'", "index='9'"), "index 2"),
    "a wrong count": (lambda text: text.replace("count='5'", "count='6'"), "6 parts"),
    "a negative size": (lambda text: text.replace("<size>", "<size>-"), "the size"),
    "an absurd size": (lambda text: text.replace("<size>", "<size>999999999999"), "the size"),
    "bad hex": (lambda text: re.sub("(<user_encrypted_iv>).", r"\1g", text), "not hex"),
    "another digest": (lambda text: text.replace("algorithm='SHA1'", "algorithm='MD5'"), "MD5"),
    "another cipher": (lambda text: text.replace("AES-128-CBC", "AES-256-GCM"), "AES-256-GCM"),
    "another version": (lambda text: text.replace("2007-10-10", "2038-01-19"), "2038-01-19"),
    "no XML": (lambda _: "no XML", "XML"),
    "nothing": (lambda _: "", "XML"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be_used(
    name: str, bundle: Made, tmp_path: Path, user_keys: KeyPair
) -> None:
    change, says = MANIFESTS[name]
    bundle.manifest.write_text(change(bundle.manifest.read_text()))
    out = tmp_path / "out"
    out.mkdir()
    words = (bundle.manifest, "--user-key", user_keys.private)
    line = refused("unbundle", *words, "-o", out / "disk")
    assert says in line
    assert len(line) < 1000
    assert within("verify", *words) == (1, "", f"{line}\n")
    assert leftovers(out) == []


def test_no_manifest_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert str(path) in refused("verify", path)
