"""The servers, the proxy and the stock recipes work, shown on plain folders without a mount.

When a mount test fails, these tell whether the ground under it holds.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import reference
from tests.support import images, oracles, servers
from tests.support.folders import contents
from tests.support.keys import KeyPair
from tests.support.proxy import Exchange, recording
from tests.support.tools import run

KEY = bytes(range(16))
IV = bytes(range(16, 32))
SECRETS = oracles.Secrets(KEY.hex(), IV.hex())
ACL = "aws-exec-read"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like a mount: two full parts, which aws sends in pieces, and a small rest."""
    made = tmp_path / "bundle"
    made.mkdir()
    for number, size in enumerate([10 * images.MIB, 10 * images.MIB, 12345]):
        images.random_image(made / f"image.part.{number:02}", size, str(number))
    (made / "image.manifest.xml").write_text("<manifest/>")
    return made


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def test_rclone_copies_to_rclone_through_the_proxy(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # rclone's server answers 500 where two files at a time want a folder that is not there.
    (store / "bucket/my prefix").mkdir(parents=True)
    with servers.rclone_s3(store, tmp_path) as server, recording(server.url) as proxy:
        words = ("copy", folder, "sink:bucket/my prefix", "--s3-acl", ACL)
        servers.rclone(server.at(proxy.url), tmp_path, *words)
    assert contents(store / "bucket/my prefix") == contents(folder)
    assert proxy.acls() == {f"/bucket/my prefix/{name}": ACL for name in contents(folder)}
    assert proxy.failures() == []


def test_rclone_serve_refuses_a_wrong_key(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with servers.rclone_s3(store, tmp_path) as server:
        stranger = servers.Server(server.url, server.access_key, "wrong")
        with pytest.raises(AssertionError, match="SignatureDoesNotMatch"):
            servers.rclone(stranger, tmp_path, "copy", "--retries=1", folder, "sink:bucket")
    assert list(store.iterdir()) == []


def test_aws_syncs_to_moto_through_the_proxy(
    folder: Path, tmp_path: Path, moto: servers.Server
) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://sync")
    with recording(moto.url) as proxy:
        words = ("s3", "sync", "--acl", ACL, folder, "s3://sync/ami")
        servers.aws(moto.at(proxy.url), tmp_path, *words)
    back = tmp_path / "back"
    servers.aws(moto, tmp_path, "s3", "cp", "--recursive", "s3://sync/ami", back)
    assert contents(back) == contents(folder)
    assert proxy.acls() == {f"/sync/ami/{name}": ACL for name in contents(folder)}
    assert proxy.failures() == []


def test_a_sync_without_acl_is_seen(folder: Path, tmp_path: Path, moto: servers.Server) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://plain")
    with recording(moto.url) as proxy:
        words = ("s3", "sync", folder, "s3://plain")
        servers.aws(moto.at(proxy.url), tmp_path, *words)
    assert proxy.acls() == {f"/plain/{name}": None for name in contents(folder)}


def test_moto_registers_an_image(tmp_path: Path, moto: servers.Server) -> None:
    words = ("--image-location", "sync/ami/image.manifest.xml", "--name", "plain folder")
    options = ("--architecture", "x86_64", "--root-device-name", "/dev/xvda")
    more = ("--virtualization-type", "hvm", "--query", "ImageId", "--output", "text")
    answer = servers.aws(moto, tmp_path, "ec2", "register-image", *words, *options, *more)
    assert re.fullmatch(rb"ami-[0-9a-f]+\n", answer)


@pytest.mark.parametrize(
    ("method", "target", "makes"),
    [
        ("PUT", "/b/k", True),
        ("PUT", "/b/k?x-id=PutObject", True),
        ("POST", "/b/k?uploads", True),
        ("PUT", "/b/k?partNumber=1&uploadId=2", False),
        ("POST", "/b/k?uploadId=2", False),
        ("PUT", "/b", False),
        ("PUT", "/b/", False),
        ("GET", "/b/k", False),
    ],
)
def test_the_proxy_knows_what_makes_an_object(method: str, target: str, *, makes: bool) -> None:
    assert Exchange(method, target, {}, 200).makes_object is makes


@pytest.mark.parametrize("size", [0, 1, 511, 512, 9215, 9217, images.MIB + 1])
def test_the_reference_tar_is_gnu_tars(size: int, tmp_path: Path) -> None:
    image = images.random_image(tmp_path / "disk", size)
    theirs = oracles.gnu_tar(image, tmp_path / "tar", name="image", mtime=123, sparse=False)
    assert reference.tar_stream(image.read_bytes(), "image", 123) == theirs.read_bytes()
    assert oracles.tar_mtime(theirs) == 123


def test_stock_tools_undo_a_reference_bundle(tmp_path: Path) -> None:
    image = images.text_image(tmp_path / "disk", 3 * images.MIB)
    made = reference.bundle_of_tar(
        reference.tar_stream(image.read_bytes(), "image", 123), KEY, IV, level=0
    )
    parts = [tmp_path / f"part{number}" for number in range(4)]
    for path, part in zip(parts, reference.cut(made.sealed, images.MIB), strict=True):
        path.write_bytes(part)
    listing = oracles.compare_streaming(parts, SECRETS, image)
    assert re.match(r"-rw-r--r-- 0/0 +3145728 1970-01-01 \S+ image\n", listing)
    tar = oracles.unseal(parts, SECRETS, tmp_path / "tar")
    assert tar.read_bytes() == made.tar
    [extracted] = oracles.untar(tar, tmp_path / "out")
    oracles.assert_same(extracted, image)


def test_the_reference_reads_a_sparse_member(tmp_path: Path) -> None:
    data = {3 * images.MIB * number: b"data" * 1024 for number in range(30)}
    image = images.sparse_image(tmp_path / "disk", 100 * images.MIB, data)
    tar = oracles.gnu_tar(image, tmp_path / "tar", name="image", mtime=1, sparse=True)
    assert tar.stat().st_size < images.MIB
    assert reference.untar(tar.read_bytes()) == image.read_bytes()


def test_openssl_opens_a_wrapped_secret(tmp_path: Path, region_keys: KeyPair) -> None:
    wrap = ("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", region_keys.public)
    wrapped = run(wrap, data=KEY.hex().encode()).hex()
    manifest = tmp_path / "image.manifest.xml"
    elements = ("ec2_encrypted_key", "ec2_encrypted_iv")
    manifest.write_text("".join(f"<{name} algorithm='A'>{wrapped}</{name}>" for name in elements))
    opened = oracles.secrets(manifest, region_keys.private, "ec2")
    assert opened.key == opened.iv == KEY.hex()


def test_openssl_refuses_a_signature_of_another_text(tmp_path: Path, user_keys: KeyPair) -> None:
    text = "<machine_configuration>x</machine_configuration><image>y</image>"
    sign = ("openssl", "dgst", "-sha1", "-sign", user_keys.private)
    manifest = tmp_path / "image.manifest.xml"
    signature = f"<signature>{run(sign, data=text.encode()).hex()}</signature>"
    manifest.write_text(f"<manifest>{text}{signature}</manifest>")
    verdict = oracles.verify_signature(manifest, user_keys.public, tmp_path)
    assert verdict == "Verified OK"
    manifest.write_text(f"<manifest>{text.replace('y', 'z')}{signature}</manifest>")
    with pytest.raises(AssertionError, match=r"-verify.* ended with 1"):
        oracles.verify_signature(manifest, user_keys.public, tmp_path)


def test_an_ext4_image_is_one_and_the_same(tmp_path: Path) -> None:
    tree = images.file_tree(tmp_path / "tree")
    once = images.ext4_image(tmp_path / "once", tree)
    time.sleep(1.1)  # a second, and the file system's clock may lag by some milliseconds
    again = images.ext4_image(tmp_path / "again", tree)
    run(["e2fsck", "-fn", once])
    oracles.assert_same(once, again)
    assert once.stat().st_blocks * 512 < once.stat().st_size, "mke2fs leaves holes"
