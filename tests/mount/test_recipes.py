"""The recipes of contrib/uploading.md, as they stand there, by the tools they name to real servers.

A recipe is a code block that begins with a comment: its name. Nothing of it is written again
here; what it presupposes comes by the environment, as the page has it in the block before.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import images, oracles, servers, sshd
from tests.support.documents import CONTRIB, code_blocks
from tests.support.mounts import Mount, mounted
from tests.support.proxy import Recorder, recording
from tests.support.tools import clean_env, tool

TEXT = (CONTRIB / "uploading.md").read_text()
SECTION = TEXT.partition("\n## Recipes\n")[2].partition("\n## ")[0]
PRESUPPOSED, *BLOCKS = code_blocks(SECTION)
RECIPES = {re.split(r"[:;,\n]", block)[0].removeprefix("# "): block for block in BLOCKS}
TO = "my-bucket/my-image"
LOOP = "one part after the other"
INTO_S3 = ("bundlefs-upload", "rclone", "aws-cli", "s3cmd")
BY_SSH = ("rsync", "tar through ssh")
S3CMD = """[default]
access_key = {0.access_key}
secret_key = {0.secret_key}
host_base = {1}
host_bucket = {1}
use_https = False
"""


def test_all_recipes_are_executed() -> None:
    assert set(RECIPES) == {*INTO_S3, LOOP, "cp", *BY_SSH}
    assert re.findall(r"([A-Z]+)=", PRESUPPOSED) == ["BUNDLE", "TO", "HOST", "DIR"]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A fresh mount of three parts, of which nothing is made."""
    image = images.random_image(tmp_path / "disk", 21 * images.MIB)
    with mounted(image, tmp_path / "mnt", "--level", "1", "--jobs", "1") as made:
        yield made


def execute(
    name: str, mount: Mount, env: dict[str, str], before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a recipe as a line that a user types: nothing but itself stops it after a failure."""
    script = f"{before}\n{RECIPES[name]}"
    return subprocess.run(
        [tool("bash"), "-u", "-o", "pipefail", "-c", script],
        env=env | {"BUNDLE": str(mount.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_complete(mount: Mount, copy: Path) -> None:
    """What arrived is the mount's bytes, and what the manifest says."""
    for path in mount.path.iterdir():
        oracles.assert_same(path, copy / path.name)
    manifest = copy / "image.manifest.xml"
    parts = sorted(copy.glob("*.part.*"))
    assert [path.name for path in parts] == oracles.part_names(manifest)
    assert oracles.sha1sum(parts) == oracles.part_digests(manifest)
    assert sorted(path.name for path in copy.iterdir()) == [manifest.name, *(p.name for p in parts)]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, the folder where its server keeps the objects, and how the tools get there."""

    folder: Path
    proxy: Recorder
    env: dict[str, str]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    folder = tmp_path / "store" / TO
    # rclone's server answers 500 where two files at a time want a folder that is not there.
    folder.mkdir(parents=True)
    with servers.rclone_s3(tmp_path / "store", tmp_path) as server, recording(server.url) as proxy:
        (tmp_path / ".s3cfg").write_text(S3CMD.format(server, proxy.url.removeprefix("http://")))
        env = servers.settings(server.at(proxy.url), tmp_path, remote="s3", TO=TO)
        yield Bucket(folder, proxy, env)


def assert_uploaded(mount: Mount, bucket: Bucket) -> None:
    """All is there, the manifest came last, and everything has the ACL."""
    assert_complete(mount, bucket.folder)
    acls = bucket.proxy.acls()
    assert list(acls)[-1] == f"/{TO}/image.manifest.xml"
    assert set(acls.values()) == {"aws-exec-read"}
    assert bucket.proxy.failures() == []


@pytest.mark.parametrize("name", INTO_S3)
def test_into_a_bucket(name: str, mount: Mount, bucket: Bucket) -> None:
    done = execute(name, mount, bucket.env)
    assert done.returncode == 0, done.stderr
    assert_uploaded(mount, bucket)


def test_a_part_is_uploaded_while_the_next_is_not_made(
    mount: Mount, bucket: Bucket, tmp_path: Path
) -> None:
    """After each upload the status says how much of the image has been bundled."""
    log = tmp_path / "log"
    noting = 'aws() { command aws "$@" && cat "$BUNDLE/.bundlefs/status.json" >&3; }'
    done = execute(LOOP, mount, bucket.env, f'exec 3>"{log}"; {noting}')
    assert done.returncode == 0, done.stderr
    assert_uploaded(mount, bucket)
    noted = re.findall(r"^\{.*?^\}", log.read_text(), re.MULTILINE | re.DOTALL)
    first, *_, last = map(json.loads, noted)
    assert (first["parts_made"], last["parts_made"]) == (1, 3)
    assert first["phase"] != "complete" == last["phase"]


# Not s3cmd, which gives up after 45 seconds; test_upload has bundlefs-upload.
@pytest.mark.parametrize("name", ["rclone", "aws-cli", LOOP])
def test_without_all_parts_no_manifest(name: str, mount: Mount, bucket: Bucket) -> None:
    """The server has a folder where a part should go, and answers 500."""
    (bucket.folder / "image.part.01/folder").mkdir(parents=True)
    once = {"AWS_MAX_ATTEMPTS": "1", "RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "1"}
    done = execute(name, mount, bucket.env | once)
    assert done.returncode != 0
    assert bucket.proxy.failures() != []
    assert not any(path.endswith(".xml") for path in bucket.proxy.acls())


def test_into_a_folder(mount: Mount, tmp_path: Path) -> None:
    folder = tmp_path / "srv/my-image"
    for _ in range(2):
        done = execute("cp", mount, clean_env(tmp_path, DIR=str(folder)))
        assert done.returncode == 0, done.stderr
    assert_complete(mount, folder)
    assert folder.stat().st_mode & 0o200, "or its owner could not remove it"


@pytest.mark.parametrize("name", BY_SSH)
def test_to_another_host(name: str, mount: Mount, tmp_path: Path) -> None:
    folder = tmp_path / "srv my-image"
    with sshd.sshd(tmp_path) as client:
        env = clean_env(tmp_path, HOST=sshd.HOST, DIR=str(folder))
        env["PATH"] = f"{client}:{env['PATH']}"
        for _ in range(2):
            done = execute(name, mount, env)
            assert done.returncode == 0, done.stderr + (tmp_path / "sshd.log").read_text()
    assert_complete(mount, folder)
    assert folder.stat().st_mode & 0o200, "or its owner could not remove it"
