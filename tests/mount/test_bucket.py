"""Bundles in a bucket, opened where they are: the recipe of contrib/uploading.md, as it stands.

A real S3 server on loopback, a real `rclone mount` of it, and between them a proxy that counts
what the server sends, or lets it fail.
"""

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.opened import BY_INDEX, BY_POINTS, Opened
from tests.support import images, oracles, servers
from tests.support.documents import CONTRIB, code_blocks
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, clear, detach, read_status, require_fuse
from tests.support.proxy import Exchange, Recorder, Trouble, recording
from tests.support.tools import ACCOUNT, run, tool

MIB = 1 << 20
PART = 10 * MIB
PLACE = "my-bucket/my-image"
TEXT = (CONTRIB / "uploading.md").read_text()
SECTION = TEXT.partition("\n## A bundle in a bucket, opened where it is\n")[2].partition("\n## ")[0]
PRESUPPOSED, RECIPE = code_blocks(SECTION)
FILES = 6
LINE = r"ERROR: part \S+/image\.part\.0\d: Input/output error"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with a small file, and some of 8 MiB that nothing makes smaller."""
    folder = tmp_path_factory.mktemp("image")
    tree = images.file_tree(folder / "tree")
    for number in range(FILES):
        images.random_image(tree / f"file{number}", 8 * MIB, f"file{number}")
    return images.ext4_image(folder / "disk", tree, 80 * MIB)


@pytest.fixture(scope="module")
def store(image: Path, user_keys: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bucket in it, and in that the bundle, with an index and without a state."""
    folder = tmp_path_factory.mktemp("store")
    words = ("--account", ACCOUNT, "--user-key", user_keys.private, "--level", "1")
    bundlefs("bundle", *words, "--with-index", "--state", "none", image, folder / PLACE)
    return folder


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bundle in a bucket, opened: the disk, what the server was asked, and how to end it."""

    disk: Opened
    listed: str
    proxy: Recorder
    server: ExitStack

    def parts(self, since: int = 0) -> list[Exchange]:
        """Give the requests for bytes of parts."""
        asked = self.proxy.exchanges[since:]
        return [one for one in asked if one.method == "GET" and ".part." in one.path]

    def sent(self, since: int = 0) -> int:
        """Give how many bytes of parts the server has sent."""
        return sum(one.sent for one in self.parts(since))


@contextlib.contextmanager
def opened_in_bucket(store: Path, key: Path, scratch: Path) -> Iterator[Bucket]:
    """Do what the recipe says, but log to a file, and try no request again."""
    require_fuse()
    remote, disk, log = scratch / "remote", scratch / "disk", scratch / "log"
    remote.mkdir()
    disk.mkdir()
    script = RECIPE.replace("--low-level-retries 2", "--low-level-retries 1")
    script = script.replace('"$KEY"', '"$KEY" --log-file "$LOG"')
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(contextlib.ExitStack())
        server = ends.enter_context(servers.rclone_s3(store, scratch))
        proxy = stack.enter_context(recording(server.url))
        stack.callback(detach, remote)
        given = {"BUCKET": PLACE, "REMOTE": remote, "DISK": disk, "KEY": key, "LOG": log}
        env = servers.settings(
            server.at(proxy.url), scratch, "s3", **{k: str(v) for k, v in given.items()}
        )
        env["XDG_STATE_HOME"] = str(scratch / "state")
        try:
            listed = run([tool("bash"), "-eu", "-c", script], env=env).decode()
            pid = int(read_status(disk)["pid"])
        except BaseException:
            detach(disk)
            raise
        stack.callback(clear, disk, pid)
        yield Bucket(Opened(disk, disk / "image.img", log, pid), listed, proxy, ends)


def names(exchanges: list[Exchange]) -> list[str]:
    return [one.path.rpartition("/")[2] for one in exchanges]


def cat(disk: Path, name: str) -> bytes:
    return run(["debugfs", "-R", f"cat {name}", disk])


def test_by_the_index_only_what_is_read_is_fetched(
    store: Path, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    tree, count = image.parent / "tree", len(list(store.glob("*/*/*.part.*")))
    with opened_in_bucket(store, user_keys.private, tmp_path) as bucket:
        assert bucket.disk.status()["access"] == BY_INDEX
        assert all(name in bucket.listed for name in ("boot", "file0", "vmlinuz"))
        asked = bucket.proxy.exchanges
        assert [one.path for one in asked if one.method == "HEAD" and ".part." in one.path] == []
        assert names(asked).count("image.index") == 1
        # whole, and in one request unless the kernel forgets it, whatever is read of it
        parts = set(names(bucket.parts()))
        assert "image.part.00" in parts
        assert len(parts) <= 3
        assert bucket.sent() <= 1.5 * PART * len(parts)

        since = len(asked)
        assert cat(bucket.disk.disk, "/file2") == (tree / "file2").read_bytes()
        assert bucket.sent(since) <= 4 * PART

        files = tmp_path / "files"
        files.mkdir()
        run(["mount", "-o", "ro,loop", bucket.disk.disk, files])
        try:
            run(["diff", "-r", tree / "usr", files / "usr"])
        finally:
            run(["umount", files])
        assert len(set(names(bucket.parts()))) < count
        _survives_trouble(bucket, image)


def _survives_trouble(bucket: Bucket, image: Path) -> None:
    """See the server fail in each way: an error and a line in the log, no byte, and no end."""
    disk, content = bucket.disk, image.read_bytes()
    for number, trouble in enumerate(Trouble, FILES - len(Trouble)):
        at = content.index(next(images.noise(4096, f"file{number}")))
        bucket.proxy.trouble.append(trouble)
        with pytest.raises(OSError, match="Input/output error"):
            disk.read(at, 4096)
        assert re.search(LINE, disk.log.read_text())
        assert disk.status()["error"]
        bucket.proxy.trouble.clear()
        assert disk.read(at, 4096) == content[at : at + 4096]


def _fails(disk: Opened, content: bytes, at: int) -> bool:
    """Tell whether a read fails; what is in memory is read as before."""
    try:
        assert disk.read(at, 4096) == content[at : at + 4096]
    except OSError as error:
        return error.errno == errno.EIO
    return False


def test_a_server_that_is_killed(
    store: Path, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    content = image.read_bytes()
    with opened_in_bucket(store, user_keys.private, tmp_path) as bucket:
        bucket.server.close()
        assert any(_fails(bucket.disk, content, at) for at in range(0, len(content), MIB))
        assert re.search(LINE, bucket.disk.log.read_text())


def test_without_an_index_it_is_one_pass(
    store: Path, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    here = tmp_path / "store"
    shutil.copytree(store, here, ignore=shutil.ignore_patterns("*.index"))
    with opened_in_bucket(here, user_keys.private, tmp_path) as bucket:
        assert bucket.disk.status()["access"] == BY_POINTS
        oracles.assert_same(bucket.disk.disk, image)
        listed = sorted(path.name for path in here.glob("*/*/*.part.*"))
        # the last one is looked at for the padding in it, then all come in order
        assert list(dict.fromkeys(names(bucket.parts()))) == [listed[-1], *listed[:-1]]
        assert bucket.sent() <= 1.5 * sum(path.stat().st_size for path in here.glob("*/*/*.part.*"))
