"""Sinks whose mount is killed in the middle of an upload, and the same command after a remount.

What is transferred is taken from the sinks' own reports, and what is in the bucket is undone
by stock tools. Both sinks are slowed down, so that there is a middle.
"""

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import images, oracles, servers
from tests.support.keys import KeyPair
from tests.support.mounts import mounted

MIB = images.MIB
BUCKET = "bundles"
NAMES = {"image.manifest.xml", *(f"image.part.{number:02}" for number in range(7))}
OPTIONS = ("--level", "1")
ENOUGH = 3
"""So many files have to be in the bucket before the mount is killed."""


@dataclass(frozen=True, slots=True)
class Sink:
    """One way to copy a folder into a bucket.

    `upload` copies and gives the names that the tool says it has transferred. `stored` gives
    the names in the bucket, and `fetch` copies them out.
    """

    upload: Callable[[Path], set[str]]
    upload_slowly: Callable[[Path], set[str]]
    stored: Callable[[], set[str]]
    fetch: Callable[[Path], None]


@contextmanager
def rclone(scratch: Path) -> Iterator[Sink]:
    store = scratch / "store"
    (store / BUCKET).mkdir(parents=True)
    with servers.rclone_s3(store, scratch) as server:

        def call(*words: str | Path) -> str:
            log = scratch / "rclone.log"
            log.unlink(missing_ok=True)
            servers.rclone(server, scratch, "--log-file", log, "-v", *words)
            return log.read_text()

        def upload(folder: Path, *options: str) -> set[str]:
            said = call("copy", *options, folder, f"sink:{BUCKET}")
            return set(re.findall(r"INFO  : (\S+): Copied \(", said))

        def stored() -> set[str]:
            # The server writes aside and renames.
            return {path.name for path in (store / BUCKET).iterdir() if path.name in NAMES}

        def fetch(folder: Path) -> None:
            call("copy", f"sink:{BUCKET}", folder)

        slow = ("--bwlimit", "20M", "--transfers", "1", "--retries", "1")
        yield Sink(upload, lambda folder: upload(folder, *slow), stored, fetch)


@contextmanager
def aws(scratch: Path) -> Iterator[Sink]:
    with servers.moto(scratch) as server:
        servers.aws(server, scratch, "s3", "mb", f"s3://{BUCKET}")
        config = scratch / ".aws" / "config"
        config.parent.mkdir()

        def upload(folder: Path, settings: str = "") -> set[str]:
            config.write_text(f"[default]\n{settings}")
            words = ("s3", "sync", "--no-progress", folder, f"s3://{BUCKET}")
            said = servers.aws(server, scratch, *words).decode()
            return set(re.findall(rf"^upload: \S+ to s3://{BUCKET}/(\S+)$", said, re.MULTILINE))

        def stored() -> set[str]:
            # Without aws-cli, which takes as long to start as two parts take to arrive.
            with urllib.request.urlopen(  # noqa: S310  # http
                f"{server.url}/{BUCKET}", timeout=60
            ) as listing:
                return set(re.findall("<Key>([^<]+)</Key>", listing.read().decode()))

        def fetch(folder: Path) -> None:
            servers.aws(server, scratch, "s3", "cp", "--recursive", f"s3://{BUCKET}", folder)

        slow = "s3 =\n  max_concurrent_requests = 1\n  max_bandwidth = 20MB/s\n"
        yield Sink(upload, lambda folder: upload(folder, slow), stored, fetch)


@pytest.fixture(params=[rclone, aws], ids=["rclone copy", "aws s3 sync"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with request.param(scratch) as made:
        yield made


def wait_for_some(sink: Sink, upload: "Future[set[str]]") -> None:
    deadline = time.monotonic() + 60
    while len(sink.stored()) < ENOUGH and not upload.done() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not upload.done(), "the upload has ended before the mount could be killed"


def assert_undone(sink: Sink, folder: Path, image: Path, user_keys: KeyPair) -> None:
    folder.mkdir()
    sink.fetch(folder)
    manifest = folder / "image.manifest.xml"
    parts = sorted(folder.glob("image.part.*"))
    assert oracles.part_names(manifest) == [part.name for part in parts]
    assert oracles.part_digests(manifest) == oracles.sha1sum(parts)
    secrets = oracles.secrets(manifest, user_keys.private)
    oracles.compare_streaming(parts, secrets, image)


def test_the_daemon_is_killed_in_the_middle(sink: Sink, tmp_path: Path, user_keys: KeyPair) -> None:
    image = images.random_image(tmp_path / "disk", 62 * MIB)
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        # S3 keeps whole seconds: what arrives in the second of the mount is taken for older.
        time.sleep(1)
        with ThreadPoolExecutor(1) as pool:
            upload = pool.submit(sink.upload_slowly, mount.path)
            wait_for_some(sink, upload)
            mount.kill()
            with pytest.raises(AssertionError, match="ended with"):
                upload.result(120)
        arrived = sink.stored()
        assert ENOUGH <= len(arrived) < len(NAMES)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        assert sink.upload(mount.path) == NAMES - arrived
        assert sink.stored() == NAMES
        status = mount.status()
        assert sink.upload(mount.path) == set()
    assert status["image_bytes_read"] < image.stat().st_size, "the pass was made again"
    assert_undone(sink, tmp_path / "back", image, user_keys)


def test_an_edited_image_is_uploaded_anew(sink: Sink, tmp_path: Path, user_keys: KeyPair) -> None:
    image = images.random_image(tmp_path / "disk", 22 * MIB)
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        names = {path.name for path in mount.path.iterdir()}
        sizes = {path.stat().st_size for path in mount.parts()}
        assert sink.upload(mount.path) == names
    with image.open("r+b") as stream:
        stream.write(b"edited, and as long as before")
    with mounted(image, tmp_path / "mnt", *options) as mount:
        assert {path.stat().st_size for path in mount.parts()} == sizes, "or size alone tells"
        assert sink.upload(mount.path) == names
    assert_undone(sink, tmp_path / "back", image, user_keys)
