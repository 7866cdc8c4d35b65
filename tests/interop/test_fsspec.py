"""`FsspecSink`: bundles straight into object stores: a real S3 server, and fsspec's own memory."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]  # it has no types
import pytest
from obstore.fsspec import FsspecStore

from bundlefs import FsspecSink, MemorySink
from tests import reference
from tests.stream.badsinks import IMAGE, bundle_to, parts_in
from tests.stream.engine import HANG, SECRET
from tests.support import servers
from tests.support.folders import contents

MIB = 1 << 20
PROMPT = 20
"""Seconds within which an error must have come, with two retries of the store's own."""


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """The parts of the image."""
    sink = MemorySink()
    bundle_to(sink, IMAGE)
    tar = reference.unbundle(parts_in(sink.files), SECRET.key, SECRET.iv)
    assert reference.untar(tar) == IMAGE
    return {name: data for name, data in sink.files.items() if ".part." in name}


@pytest.fixture
def in_memory() -> Iterator[fsspec.AbstractFileSystem]:
    yield (memory := fsspec.filesystem("memory", skip_instance_cache=True))
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("folder", ["/bucket/my-image", "/bucket/my-image/", "/bucket"])
def test_fsspecs_own_memory_gets_the_bundle(
    in_memory: fsspec.AbstractFileSystem, folder: str, whole: dict[str, bytes]
) -> None:
    bundle_to(FsspecSink(in_memory, folder), IMAGE)
    found = {path: in_memory.cat_file(path) for path in in_memory.find("/")}
    root = folder.rstrip("/")
    manifest = found.pop(f"{root}/image.manifest.xml")
    assert b"<filename>image.part.02</filename>" in manifest
    assert found == {f"{root}/{part}": data for part, data in whole.items()}


def test_options_go_with_every_object() -> None:
    class Noting:
        def __init__(self) -> None:
            self.calls: list[tuple[str, dict[str, str]]] = []

        def pipe_file(self, path: str, value: bytes, **options: str) -> None:
            assert isinstance(value, bytes)
            self.calls.append((path, options))

    system = Noting()
    bundle_to(FsspecSink(system, "b/p", ACL="aws-exec-read"), IMAGE[:MIB])
    wanted = {"ACL": "aws-exec-read"}
    assert system.calls == [("b/p/image.part.00", wanted), ("b/p/image.manifest.xml", wanted)]


@dataclass(frozen=True)
class Bucket:
    """A bucket on a real S3 server: a folder that rclone serves."""

    server: servers.Server
    folder: Path

    def sink(self, **changes: str) -> FsspecSink:
        """Give a sink into it, which tries twice in vain before it gives up."""
        tenth = timedelta(milliseconds=100)
        backoff = {"base": 2, "init_backoff": tenth, "max_backoff": tenth}
        store: Any = FsspecStore  # its types have no room for what fsspec itself takes
        system = store(
            "s3",
            skip_instance_cache=True,
            retry_config={
                "max_retries": 2,
                "backoff": backoff,
                "retry_timeout": timedelta(seconds=5),
            },
            client_options={"allow_http": True, "timeout": timedelta(seconds=20)},
            **{
                "endpoint": self.server.url,
                "access_key_id": self.server.access_key,
                "secret_access_key": self.server.secret_key,
                "region": servers.REGION,
                **changes,
            },
        )
        return FsspecSink(system, "bucket/my-image")

    @property
    def objects(self) -> dict[str, bytes]:
        """Give what is in the bucket."""
        folder = self.folder / "bucket/my-image"
        return contents(folder) if folder.exists() else {}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's tells obstore where to go."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@contextmanager
def serving(tmp_path: Path) -> Iterator[Bucket]:
    folder = tmp_path / "store"
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    with servers.rclone_s3(folder, tmp_path) as server:
        yield Bucket(server, folder)


def test_s3_gets_the_bundle(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with serving(tmp_path) as bucket:
        bundle_to(bucket.sink(), IMAGE)
    assert b"<digest" in bucket.objects["image.manifest.xml"]
    assert {key: data for key, data in bucket.objects.items() if ".part." in key} == whole


def test_s3_that_refuses_is_heard(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with serving(tmp_path) as bucket:
        start = time.monotonic()
        with pytest.raises(Exception, match=r"SignatureDoesNotMatch|Forbidden"):
            bundle_to(bucket.sink(secret_access_key="wrong"), IMAGE)  # noqa: S106  # it is
        assert time.monotonic() - start < PROMPT
        assert bucket.objects == {}
        bundle_to(bucket.sink(), IMAGE)
    assert bucket.objects.items() > whole.items()


def test_a_server_that_goes_away_is_heard(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """It ends after the first part; another takes the bundle anew."""
    with serving(tmp_path) as bucket:
        stopped: list[float] = []
        process = the_server(bucket)

        def stop(start: int) -> None:
            if start >= 12 * MIB and not stopped:
                deadline = time.monotonic() + HANG
                while "image.part.00" not in bucket.objects and time.monotonic() < deadline:
                    time.sleep(0.01)
                os.kill(process, 9)
                stopped.append(time.monotonic())

        with pytest.raises(Exception, match=r"(?i)connect|sending request"):
            bundle_to(bucket.sink(), IMAGE, stop)
        assert time.monotonic() - stopped[0] < PROMPT
        assert bucket.objects.items() < whole.items()
    with serving(tmp_path) as again:
        bundle_to(again.sink(), IMAGE)
        assert again.objects.items() > whole.items()


def the_server(bucket: Bucket) -> int:
    """Find the process that listens at the server's port."""
    port = int(bucket.server.url.rpartition(":")[2])
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    [inode] = [line.split()[9] for line in lines if wanted in line]
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink().name == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError("nobody listens there")
