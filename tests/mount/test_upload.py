"""contrib/upload, by aws-cli and by rclone, to real servers on loopback."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images, servers
from tests.support.mounts import Mount, mounted
from tests.support.proxy import recording
from tests.support.tools import clean_env

UPLOAD = Path(__file__).parents[2] / "contrib/upload"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    image = images.random_image(tmp_path / "disk", 25 * images.MIB)
    with mounted(image, tmp_path / "mnt", "--arch", "arm64") as made:
        yield made


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def upload(
    server: servers.Server, home: Path, *words: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run it with both tools set up for a server; may fail."""
    env = clean_env(
        home,
        AWS_ENDPOINT_URL=server.url,
        AWS_ACCESS_KEY_ID=server.access_key,
        AWS_SECRET_ACCESS_KEY=server.secret_key,
        AWS_DEFAULT_REGION=servers.REGION,
        AWS_EC2_METADATA_DISABLED="true",
        RCLONE_CONFIG_SINK_TYPE="s3",
        RCLONE_CONFIG_SINK_PROVIDER="Other",
        RCLONE_CONFIG_SINK_ENDPOINT=server.url,
        RCLONE_CONFIG_SINK_ACCESS_KEY_ID=server.access_key,
        RCLONE_CONFIG_SINK_SECRET_ACCESS_KEY=server.secret_key,
    )
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, str(UPLOAD), *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sent(paths: list[str]) -> list[str]:
    return [path.partition("?")[0].rpartition("/")[2] for path in paths]


def test_aws(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://whole")
    with recording(moto.url) as proxy:
        words = (mount.path, "s3://whole/ami/one", "--register", "bundled")
        done = upload(moto.at(proxy.url), tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"ami-[0-9a-f]+\n", done.stdout)
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
        again = upload(moto.at(proxy.url), tmp_path, mount.path, "s3://whole/ami/one")
        assert again.returncode == 0, again.stderr
        assert proxy.acls() == {}
    assert again.stdout == (
        "aws ec2 register-image --image-location whole/ami/one/image.manifest.xml"
        " --virtualization-type hvm --architecture arm64 --root-device-name /dev/xvda --name one\n"
    )


def test_rclone(mount: Mount, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "bucket/ami").mkdir(parents=True)
    (store / "bucket/ami/image.part.07").write_bytes(b"of another bundle")
    with servers.rclone_s3(store, tmp_path) as server, recording(server.url) as proxy:
        done = upload(server.at(proxy.url), tmp_path, mount.path, "sink:bucket/ami")
        assert done.returncode == 0, done.stderr
        acls = proxy.acls()
    assert sent(list(acls))[-1] == "image.manifest.xml"
    assert set(acls.values()) == {"aws-exec-read"}
    assert "not of this bundle, left as they are: image.part.07" in done.stderr
    for path in mount.path.iterdir():
        assert (store / "bucket/ami" / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_sends_nothing(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://dry")
    with recording(moto.url) as proxy:
        words = ("--dry-run", "--register", "n", mount.path, "s3://dry/ami")
        done = upload(moto.at(proxy.url), tmp_path, *words)
        assert {one.method for one in proxy.exchanges} <= {"GET", "HEAD"}
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("+ aws s3 sync") == 2
    assert done.stdout.startswith("aws ec2 register-image")


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
    assert done.returncode == 1
    assert f"upload: bucket useless {text}" in done.stderr


@pytest.mark.parametrize(
    "dest", ["s3://bucket//ami", "s3://bucket", "s3://bucket/ami/", "sink:/bucket/ami", "folder"]
)
def test_a_location_that_ec2_refuses(
    dest: str, mount: Mount, moto: servers.Server, tmp_path: Path
) -> None:
    done = upload(moto, tmp_path, mount.path, dest)
    assert done.returncode == 1
    assert done.stderr.startswith("upload: destination ")


def test_a_missing_bucket(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    for dest in ("s3://nowhere/ami", "sink:nowhere/ami"):
        done = upload(moto, tmp_path, mount.path, dest)
        assert done.returncode == 1
        assert "run this again to go on" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_manifest_without_all_parts(mount: Mount, moto: servers.Server, tmp_path: Path) -> None:
    servers.aws(moto, tmp_path, "s3", "mb", "s3://part")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in mount.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    os.truncate(copy / "image.part.01", 5)
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert done.returncode == 1
    assert "have not the size that image.manifest.xml says" in done.stderr
    (copy / "image.part.01").unlink()
    done = upload(moto, tmp_path, copy, "s3://part/ami")
    assert "lacks image.part.01, which image.manifest.xml names" in done.stderr
