"""bundlefs-upload, by aws-cli and by rclone, to real servers on loopback."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import MARK, Ending, assert_nothing_left, eventually, names
from tests.support import images, servers
from tests.support.mounts import Mount, bundlefs, mounted
from tests.support.proxy import recording
from tests.support.tools import clean_env

UPLOAD = ("-m", "bundlefs.cli.uploading")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    image = images.random_image(tmp_path / "disk", 25 * images.MIB)
    with mounted(image, tmp_path / "mnt", "--arch", "arm64") as made:
        yield made


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def start(env: dict[str, str], *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *UPLOAD, *map(str, words)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], mark: str = "") -> Ending:
    out, err = process.communicate(timeout=120)
    return Ending(process.returncode, out, err, mark)


def upload(server: servers.Server, home: Path, *words: str | Path, **env: str) -> Ending:
    """Run it with both tools set up for a server; may fail."""
    return finish(start(servers.settings(server, home, **env), *words))


def sent(paths: list[str]) -> list[str]:
    return [path.partition("?")[0].rpartition("/")[2] for path in paths]


def test_aws(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://whole")
    with recording(moto.url) as proxy:
        words = (mount.path, "s3://whole/ami/one", "--register", "bundled")
        done = upload(moto.at(proxy.url), tmp_path, *words)
        assert done.code == 0, done.err
        assert re.fullmatch(r"ami-[0-9a-f]+\n", done.out)
        acls = proxy.acls()
    names = sorted(path.name for path in mount.path.iterdir())
    assert sorted(sent(list(acls))) == names
    assert set(acls.values()) == {"aws-exec-read"}
    assert sent(list(acls))[-1] == "image.manifest.xml"
    back = tmp_path / "back"
    servers.aws(moto, tmp_path, "s3", "cp", "--recursive", "s3://whole/ami/one", back)
    for path in mount.path.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes()
    with recording(moto.url) as proxy:
        less = ("--no-check", mount.path, "s3://whole/ami/one")
        again = upload(moto.at(proxy.url), tmp_path, *less)
        assert again.code == 0, again.err
        assert proxy.acls() == {}
    assert again.out == (
        "aws ec2 register-image --image-location whole/ami/one/image.manifest.xml"
        " --virtualization-type hvm --architecture arm64 --root-device-name /dev/xvda --name one\n"
    )


def test_rclone(mount: Mount, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "bucket/ami").mkdir(parents=True)
    (store / "bucket/ami/image.part.07").write_bytes(b"of another bundle")
    with servers.rclone_s3(store, tmp_path) as server, recording(server.url) as proxy:
        done = upload(server.at(proxy.url), tmp_path, mount.path, "sink:bucket/ami")
        assert done.code == 0, done.err
        acls = proxy.acls()
    assert sent(list(acls))[-1] == "image.manifest.xml"
    assert set(acls.values()) == {"aws-exec-read"}
    assert "not of this bundle, left as they are: image.part.07" in done.err
    for path in mount.path.iterdir():
        assert (store / "bucket/ami" / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_sends_nothing(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://dry")
    with recording(moto.url) as proxy:
        words = ("--dry-run", "--register", "n", mount.path, "s3://dry/ami")
        done = upload(moto.at(proxy.url), tmp_path, *words)
        assert {one.method for one in proxy.exchanges} <= {"GET", "HEAD"}
    assert done.code == 0, done.err
    assert done.err.count("+ aws s3 sync") == 2
    assert done.out.startswith("aws ec2 register-image")


ENFORCED = "Rules=[{ObjectOwnership=BucketOwnerEnforced}]"
KMS = '{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"aws:kms"}}]}'


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            f"put-bucket-ownership-controls --ownership-controls {ENFORCED}",
            "has ACLs disabled, and EC2 needs aws-exec-read; enable them: aws s3api",
        ),
        (
            f"put-bucket-encryption --server-side-encryption-configuration {KMS}",
            "encrypts by KMS, which EC2 cannot read",
        ),
    ],
)
def test_a_bucket_that_ec2_cannot_use(
    words: str, text: str, mount: Mount, moto: servers.Server, tmp_path: Path
) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://useless")
    servers.aws(moto, tmp_path, "s3api", *words.split(" "), "--bucket", "useless")
    done = upload(moto, tmp_path, mount.path, "s3://useless/ami")
    servers.aws(moto, tmp_path, "s3", "rb", "s3://useless")
    assert done.code == 1
    assert f"bundlefs-upload: bucket useless {text}" in done.err


@pytest.mark.parametrize(
    "dest", ["s3://bucket//ami", "s3://bucket", "s3://bucket/ami/", "sink:/bucket/ami", "folder"]
)
def test_a_location_that_ec2_refuses(dest: str, tmp_path: Path) -> None:
    done = finish(start(clean_env(tmp_path), tmp_path, dest))
    assert done.code == 2
    assert f"argument DEST: {dest!r}: " in done.err


def test_a_missing_tool(tmp_path: Path) -> None:
    for dest, name in (("s3://bucket/ami", "aws"), ("sink:bucket/ami", "rclone")):
        done = finish(start(clean_env(tmp_path, PATH=str(tmp_path)), tmp_path, dest))
        assert done.code == 1
        assert done.err.startswith(f"bundlefs-upload: {name} is not installed, and ")


def test_a_missing_bucket(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    for dest in ("s3://nowhere/ami", "sink:nowhere/ami"):
        done = upload(moto, tmp_path, mount.path, dest)
        assert done.code == 1
        assert "run this again to go on" in done.err
        assert "Traceback" not in done.err


def test_no_manifest_without_all_parts(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://part")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in mount.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    os.truncate(copy / "image.part.01", 5)
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert done.code == 1
    assert "have not the size that image.manifest.xml says" in done.err
    (copy / "image.part.01").unlink()
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert "lacks image.part.01, which image.manifest.xml names" in done.err
    (copy / "image.manifest.xml").write_text("<manifest>")
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert f"a manifest in {copy} is broken: no element found" in done.err
    (copy / "image.manifest.xml").unlink()
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert f"{copy} has no manifest" in done.err
    done = upload(moto, tmp_path, copy / "none", "s3://part/ami")
    assert (done.code, done.err) == (
        1,
        f"bundlefs-upload: {copy}/none: No such file or directory\n",
    )


@pytest.mark.parametrize("scheme", ["s3://", "sink:"])
def test_a_server_that_fails(scheme: str, mount: Mount, tmp_path: Path) -> None:
    """The server cannot store an object where it has a folder, and answers 500."""
    stored = tmp_path / "store/bucket/ami"
    (stored / "image.part.01/folder").mkdir(parents=True)
    once = {"AWS_MAX_ATTEMPTS": "1", "RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "1"}
    with servers.rclone_s3(tmp_path / "store", tmp_path) as server:
        words = ("--no-check", mount.path, f"{scheme}bucket/ami")
        done = upload(server, tmp_path, *words, **once)
    assert done.code == 1
    assert done.out == ""
    assert "failed: InternalError: the server failed, not the bundle; run this" in done.err
    assert names(stored) == ["image.part.00", "image.part.01", "image.part.02"]
    assert (stored / "image.part.01").is_dir()


def test_it_is_killed_and_goes_on(tmp_path: Path) -> None:
    stored = tmp_path / "store/bucket/ami"
    stored.mkdir(parents=True)

    def parts() -> set[str]:
        # The server writes aside and renames.
        return {path.name for path in stored.glob("image.*")}

    image = images.random_image(tmp_path / "disk", 45 * images.MIB)
    with (
        mounted(image, tmp_path / "mnt", "--level", "1") as mount,
        servers.rclone_s3(tmp_path / "store", tmp_path) as server,
        recording(server.url) as proxy,
    ):
        mark = uuid.uuid4().hex
        slow = {"RCLONE_BWLIMIT": "20M", "RCLONE_TRANSFERS": "1", MARK: mark}
        words = (mount.path, "sink:bucket/ami")
        first = start(servers.settings(server, tmp_path, **slow), *words)
        assert eventually(lambda: len(parts()) > 1, 60)
        first.send_signal(signal.SIGTERM)
        killed = finish(first, mark)
        assert_nothing_left(killed)
        before = parts()
        assert (killed.code, killed.out) == (143, "")
        assert 1 < len(before) < 5
        assert "image.manifest.xml" not in before
        already = len(proxy.exchanges)
        assert upload(server.at(proxy.url), tmp_path, *words).code == 0
        again = [one.path for one in proxy.exchanges[already:] if one.makes_object]
        assert set(sent(again)) == {path.name for path in mount.path.iterdir()} - before
        for path in mount.path.iterdir():
            assert (stored / path.name).read_bytes() == path.read_bytes()


def test_a_manifest_for_each_region(tmp_path: Path) -> None:
    image = images.text_image(tmp_path / "disk", 4096)
    folder = tmp_path / "bundle"
    regions = ("--region", "eu-west-1", "--region", "cn-north-1")
    bundlefs("bundle", "--state", "none", *regions, image, folder)
    env = clean_env(tmp_path, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    words = ("--dry-run", "--no-check", folder, "s3://bucket/ami")

    def registered(*options: str) -> list[str]:
        done = finish(start(env, *options, *words))
        assert done.code == 0, done.err
        return re.findall(r"register-image (.*?/image\S+)", done.out)

    standard, china = "bucket/ami/image.manifest.xml", "bucket/ami/image.cn-north-1.manifest.xml"
    assert registered() == [
        f"--region cn-north-1 --image-location {china}",
        f"--image-location {standard}",
    ]
    assert registered("--region", "cn-north-1") == [f"--region cn-north-1 --image-location {china}"]
    assert registered("--region", "eu-west-1") == [
        f"--region eu-west-1 --image-location {standard}"
    ]
    done = finish(start(env, "--register", "name", *words))
    assert done.code == 1
    assert "give --region to tell which of image.cn-north-1.manifest.xml, image.man" in done.err
