"""Bundles of real mounts, undone and checked by stock tools alone.

Every image is mounted once, its parts and manifests are copied out by `cp`, and
each test looks at one thing: so a failure names what is wrong, not where
the test gave up.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, mounted
from tests.support.tools import ACCOUNT, run

MIB = images.MIB
GIB = 1024 * MIB
PART = 10 * MIB
REGION = "us-test-1"
REGION_MANIFEST = f"image.{REGION}.manifest.xml"


@dataclass(frozen=True, slots=True)
class Copied:
    """What `cp` took out of a mount, and what `stat` and `getfattr` said of it there."""

    image: Path
    parts: list[Path]
    manifest: Path
    region_manifest: Path
    part_attributes: list[str]
    mtimes: set[int]


def ext4(path: Path) -> Path:
    return images.ext4_image(path, images.file_tree(path.with_suffix(".tree")))


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "1 byte": lambda path: images.random_image(path, 1),
    "511 bytes": lambda path: images.text_image(path, 511),
    "512 bytes": lambda path: images.text_image(path, 512),
    "1 MiB less 1": lambda path: images.text_image(path, MIB - 1),
    "1 MiB": lambda path: images.text_image(path, MIB),
    "1 MiB and 1": lambda path: images.text_image(path, MIB + 1),
    "ext4": ext4,
    "25 MiB random": lambda path: images.random_image(path, 25 * MIB),
}


def key_options(user: KeyPair, region: KeyPair) -> list[str | Path]:
    """Give the options for both manifests: the standard key's and the test region's."""
    own = ["--region", "us-east-1", "--region", REGION, "--ec2-cert", f"{REGION}={region.public}"]
    return [*own, "--user-key", user.private]


def copy_out(mount: Mount, folder: Path) -> Copied:
    """Copy everything that the mount lists, as a user would."""
    run(["cp", "-r", f"{mount.path}/.", folder])
    parts = sorted(folder.glob("image.part.*"))
    shown = ["getfattr", "--only-values", "-n", "user.bundlefs.sha1"]
    attributes = [run([*shown, mount.path / part.name]).decode() for part in parts]
    mtimes = {int(path.stat().st_mtime) for path in mount.path.iterdir()}
    manifests = (folder / "image.manifest.xml", folder / REGION_MANIFEST)
    return Copied(mount.image, parts, *manifests, attributes, mtimes)


@pytest.fixture(scope="module", params=BUILDERS)
def copied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    user_keys: KeyPair,
    region_keys: KeyPair,
) -> Copied:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "out").mkdir()
    image = BUILDERS[request.param](folder / "disk")
    with mounted(image, folder / "mnt", *key_options(user_keys, region_keys)) as mount:
        return copy_out(mount, folder / "out")


@pytest.fixture(scope="module")
def tar(copied: Copied, tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair) -> Path:
    """The tar stream, by openssl and gunzip with the user's copy of the secrets."""
    secrets = oracles.secrets(copied.manifest, user_keys.private)
    return oracles.unseal(copied.parts, secrets, tmp_path_factory.mktemp("tar") / "tar")


def test_the_directory_is_the_bundle_and_nothing_else(copied: Copied) -> None:
    listed = {path.name for path in copied.manifest.parent.iterdir()}
    parts = {f"image.part.{number:02}" for number in range(len(copied.parts))}
    assert listed == parts | {copied.manifest.name, REGION_MANIFEST}


def test_parts_are_full_but_the_last(copied: Copied) -> None:
    sizes = [part.stat().st_size for part in copied.parts]
    assert set(sizes[:-1]) <= {PART}
    assert 0 < sizes[-1] <= PART
    assert int(oracles.element(copied.manifest, "bundled_size")) == sum(sizes)


def test_the_image_comes_back(copied: Copied, tar: Path, tmp_path: Path) -> None:
    [extracted] = oracles.untar(tar, tmp_path / "out")
    assert extracted.name == "image"
    oracles.assert_same(extracted, copied.image)
    assert int(oracles.element(copied.manifest, "size")) == copied.image.stat().st_size


def test_the_tar_is_gnu_tars(copied: Copied, tar: Path, tmp_path: Path) -> None:
    sparse = tar.read_bytes()[156:157] == b"S"
    mtime = oracles.tar_mtime(tar)
    whole = tmp_path / "tar"
    theirs = oracles.gnu_tar(copied.image, whole, name="image", mtime=mtime, sparse=sparse)
    oracles.assert_same(tar, theirs)
    assert copied.mtimes == {mtime}


def test_the_tar_digest_is_sha1sums(copied: Copied, tar: Path) -> None:
    assert [oracles.image_digest(copied.manifest)] == oracles.sha1sum([tar])


def test_every_part_digest_is_sha1sums(copied: Copied) -> None:
    summed = oracles.sha1sum(copied.parts)
    assert oracles.part_names(copied.manifest) == [part.name for part in copied.parts]
    assert oracles.part_digests(copied.manifest) == summed
    assert copied.part_attributes == summed


def test_the_region_opens_the_same_secrets(
    copied: Copied, user_keys: KeyPair, region_keys: KeyPair
) -> None:
    ec2 = oracles.secrets(copied.region_manifest, region_keys.private, "ec2")
    assert ec2 == oracles.secrets(copied.region_manifest, user_keys.private)
    assert ec2 == oracles.secrets(copied.manifest, user_keys.private)
    assert ec2.key != ec2.iv


def test_the_region_has_no_key_to_the_standard_manifest(
    copied: Copied, region_keys: KeyPair
) -> None:
    with pytest.raises(AssertionError):
        oracles.secrets(copied.manifest, region_keys.private, "ec2")


@pytest.mark.parametrize("name", ["image.manifest.xml", REGION_MANIFEST])
def test_the_signature_fits_the_literal_text(
    copied: Copied, name: str, user_keys: KeyPair, tmp_path: Path
) -> None:
    manifest = copied.manifest.with_name(name)
    assert oracles.verify_signature(manifest, user_keys.public, tmp_path) == "Verified OK"


def test_the_manifest_names_its_account(copied: Copied) -> None:
    assert oracles.element(copied.manifest, "user") == ACCOUNT
    content = copied.manifest.read_text("ascii")
    assert f"</name><user>{ACCOUNT}</user><type>machine</type>" in content


@pytest.fixture
def exact(tmp_path: Path, user_keys: KeyPair) -> Iterator[Mount]:
    """A mount whose sealed bytes are an exact multiple of the part size.

    Which image does that depends on the codec, so it is found: each random byte in place of
    a zero makes the bundle about one byte longer, and a target 16 bytes wide is soon hit.
    """
    random = wanted = size = PART
    for attempt in range(20):
        image = images.tuned_image(tmp_path / f"disk{attempt}", random, 12 * MIB)
        options = ("--user-key", user_keys.private)
        with mounted(image, tmp_path / f"mnt{attempt}", *options) as mount:
            size = sum(part.stat().st_size for part in mount.parts())
            if size == wanted:
                yield mount
                return
        random += wanted - size
    raise AssertionError(f"no image with {wanted} sealed bytes found; the last had {size}")


def test_an_exact_multiple_has_no_empty_part(
    exact: Mount, user_keys: KeyPair, tmp_path: Path
) -> None:
    assert [(part.name, part.stat().st_size) for part in exact.parts()] == [("image.part.00", PART)]
    assert oracles.part_names(exact.manifest()) == ["image.part.00"]
    assert oracles.part_digests(exact.manifest()) == oracles.sha1sum(exact.parts())
    secrets = oracles.secrets(exact.manifest(), user_keys.private)
    tar = oracles.unseal(exact.parts(), secrets, tmp_path / "tar")
    [extracted] = oracles.untar(tar, tmp_path / "out")
    oracles.assert_same(extracted, exact.image)


def forget(paths: list[Path]) -> None:
    """Drop what the kernel's page cache holds of the files."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_extents_that_become_data_when_read(tmp_path: Path, user_keys: KeyPair) -> None:
    image = images.unwritten_image(tmp_path / "disk", 240 * MIB)
    options = ("--cache-size", "0", "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        before = oracles.sha1sum(mount.parts())
        made = mount.status()["blocks_compressed"]
        run(["cat", image])  # the page cache now holds what SEEK_DATA called holes
        forget(mount.parts())
        assert oracles.part_digests(mount.manifest()) == before == oracles.sha1sum(mount.parts())
        assert mount.status()["blocks_compressed"] > made, "nothing was made again"
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)


def test_nine_gib_sparse(tmp_path: Path, user_keys: KeyPair) -> None:
    data = {0: b"first", 4 * GIB + 4096: images.text(3 * MIB), 9 * GIB - 5: b"last."}
    image = images.sparse_image(tmp_path / "disk", 9 * GIB, data)
    options = ("--level", "1", "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        tar = oracles.unseal(mount.parts(), secrets, tmp_path / "tar")
        assert int(oracles.element(mount.manifest(), "size")) == 9 * GIB
    # more than 8 GiB does not fit eleven octal digits: GNU tar reads the size from base-256
    listing = run(["tar", "--numeric-owner", "-tvf", tar]).decode()
    assert re.fullmatch(rf"-rw-r--r-- 0/0 +{9 * GIB} .* image\n", listing)
    [extracted] = oracles.untar(tar, tmp_path / "out")
    oracles.assert_same_sparse(extracted, image)
