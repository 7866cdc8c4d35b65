"""Real sinks copy a live mount to real servers, with their defaults.

They go through a proxy that records the ACL each object is sent with, since the
servers do not keep it.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images, servers
from tests.support.mounts import Mount, mounted
from tests.support.proxy import Recorder, recording
from tests.support.tools import ACCOUNT

ACL = "aws-exec-read"
PREFIX = "ami/one"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A fresh mount of three parts that no one has listed yet: the sink is the first to ask."""
    image = images.random_image(tmp_path / "disk", 25 * images.MIB)
    with mounted(image, tmp_path / "mnt") as made:
        yield made


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """What rclone serves."""
    folder = tmp_path / "store"
    # rclone's server answers 500 where two files at a time want a folder that is not there.
    (folder / "bucket" / PREFIX).mkdir(parents=True)
    return folder


def assert_copied(mount: Mount, copy: Path, proxy: Recorder) -> None:
    """Every file of the mount is there, with its bytes, and nothing else; each had its ACL."""
    expected = {path.name: path.read_bytes() for path in mount.path.iterdir()}
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == expected
    assert len(expected) == 4, "three parts and a manifest"
    assert {path.rpartition("/")[2]: acl for path, acl in proxy.acls().items()} == dict.fromkeys(
        expected, ACL
    )
    assert proxy.failures() == []


def test_aws_s3_sync(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://sync")
    with recording(moto.url) as proxy:
        words = ("s3", "sync", "--acl", ACL, mount.path, f"s3://sync/{PREFIX}")
        servers.aws(moto.at(proxy.url), tmp_path, *words)
    back = tmp_path / "back"
    servers.aws(moto, tmp_path, "s3", "cp", "--recursive", f"s3://sync/{PREFIX}", back)
    assert_copied(mount, back, proxy)


def test_aws_s3_sync_again_sends_nothing(
    mount: Mount, moto: servers.Server, tmp_path: Path
) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://again")
    time.sleep(1)  # S3 keeps whole seconds: what arrives in the second of the mount is older
    words = ("s3", "sync", "--acl", ACL, mount.path, "s3://again")
    servers.aws(moto, tmp_path, *words)
    with recording(moto.url) as proxy:
        servers.aws(moto.at(proxy.url), tmp_path, *words)
    assert proxy.acls() == {}
    assert [one.method for one in proxy.exchanges] == ["GET"], "one listing and no more"


def test_rclone_copy(mount: Mount, store: Path, tmp_path: Path) -> None:
    with servers.rclone_s3(store, tmp_path) as server, recording(server.url) as proxy:
        words = ("copy", "--s3-acl", ACL, mount.path, f"sink:bucket/{PREFIX}")
        servers.rclone(server.at(proxy.url), tmp_path, *words)
    assert_copied(mount, store / "bucket" / PREFIX, proxy)


def test_rclone_check_agrees(mount: Mount, store: Path, tmp_path: Path) -> None:
    with servers.rclone_s3(store, tmp_path) as server:
        servers.rclone(server, tmp_path, "copy", mount.path, "sink:bucket")
        servers.rclone(server, tmp_path, "check", "--download", mount.path, "sink:bucket")


def test_register_image(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://register")
    servers.aws(moto, tmp_path, "s3", "sync", "--acl", ACL, mount.path, f"s3://register/{PREFIX}")
    location = f"register/{PREFIX}/{mount.manifest().name}"
    words = ("--image-location", location, "--virtualization-type", "hvm", "--name", "bundled")
    more = ("--architecture", "x86_64", "--root-device-name", "/dev/xvda")
    shown = ("--query", "ImageId", "--output", "text")
    ami = servers.aws(moto, tmp_path, "ec2", "register-image", *words, *more, *shown)
    assert re.fullmatch(rb"ami-[0-9a-f]+\n", ami)
    manifest = servers.aws(moto, tmp_path, "s3", "cp", f"s3://{location}", "-")
    assert f"<user>{ACCOUNT}</user>".encode() in manifest
