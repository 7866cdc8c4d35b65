"""bundlefs-upload while the bundle is made: from a mount, and from an image in one command.

What the server has is looked up in its folder, what was sent is taken from the wire, and how far
the bundle was by then is the mount's own count. Whatever is killed, the same command again sends
what is missing, and what is there then gives the image.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mount.commands import (
    MARK,
    Ending,
    assert_nothing_left,
    eventually,
)
from tests.support import images, servers
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, bundlefs, leave_nothing, mounted, mounts_below
from tests.support.proxy import Exchange, recording
from tests.support.tools import ACCOUNT
from tests.support.wire import wire

UPLOAD = (sys.executable, "-m", "bundlefs.cli.uploading")
MIB = images.MIB
SLOW_AWS = "[default]\ns3 =\n  max_bandwidth = 8MB/s\n  max_concurrent_requests = 1\n"
PARTS = [f"image.part.{number:02}" for number in range(3)]


@dataclass(slots=True)
class Host:
    """Where uploads are started: a bucket behind a server, and nothing else of the machine."""

    folder: Path
    scratch: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def stored(self) -> Path:
        return self.folder / "store/bucket/ami"

    def parts(self) -> set[str]:
        # The server writes aside and renames.
        return {path.name for path in self.stored.glob("image.*")}

    def start(
        self, server: servers.Server, *words: str | Path, **env: str
    ) -> subprocess.Popen[str]:
        own = {"TMPDIR": str(self.scratch), "XDG_STATE_HOME": str(self.folder / "states")}
        own |= {"BUNDLEFS_ACCOUNT": ACCOUNT, "RCLONE_CONFIG": "/dev/null", MARK: self.mark}
        process = subprocess.Popen(
            [*UPLOAD, *map(str, words)],
            env=servers.settings(server, self.folder, **own, **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Ending:
        """Wait for an upload; nothing of it may be left, whatever has ended it."""
        out, err = process.communicate(timeout=120)
        ending = Ending(process.returncode, out, err, self.mark)
        assert_nothing_left(ending)
        assert mounts_below(self.scratch) == []
        return ending

    def pid_of(self, word: str) -> int | None:
        """Find a process of an upload by a word of its command line."""
        for pid in Ending(0, "", "", self.mark).processes():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    # rclone's server answers 500 where two files at a time want a folder that is not there.
    made = Host(tmp_path, tmp_path / "scratch")
    made.scratch.mkdir()
    made.stored.mkdir(parents=True)
    try:
        yield made
    finally:
        leave_nothing(made.started, made.scratch)


# --- while it is made ---


def test_the_first_object_is_there_before_a_tenth_is_compressed(host: Host, tmp_path: Path) -> None:
    image = images.random_image(tmp_path / "disk", 360 * MIB)
    seen: list[int] = []
    with (
        mounted(image, tmp_path / "mnt", "--level", "1") as mount,
        servers.rclone_s3(tmp_path / "store", tmp_path) as server,
    ):

        def note(one: Exchange) -> None:
            if one.makes_object and not seen:
                seen.append(mount.status()["blocks_compressed"])

        with recording(server.url, note) as proxy:
            process = host.start(server.at(proxy.url), mount.path, "sink:bucket/ami")
            assert eventually(lambda: bool(seen), 60)
            process.send_signal(signal.SIGTERM)
            assert host.finish(process).code == 143
        assert host.parts()
        assert 10 <= seen[0] <= 36


@pytest.mark.parametrize("words", [("sink:bucket/ami",), ("s3://bucket/ami", "--s5cmd")])
def test_nothing_is_made_twice_and_an_index_goes_along(
    words: tuple[str, ...], host: Host, tmp_path: Path
) -> None:
    image = images.random_image(tmp_path / "disk", 45 * MIB)
    shown = (image, tmp_path / "mnt", "--level", "1", "--with-index")
    with (
        servers.rclone_s3(tmp_path / "store", tmp_path) as server,
        recording(server.url) as proxy,
    ):
        s5cmd = {"S3_ENDPOINT_URL": proxy.url}
        with mounted(*shown) as mount:
            process = host.start(server.at(proxy.url), "--no-check", mount.path, *words, **s5cmd)
            ending = host.finish(process)
            assert ending.code == 0, ending.err
            assert mount.status()["blocks_compressed"] == 46
        sent = [one for one in proxy.exchanges if one.makes_object]
        assert len(sent) == 7, "five parts, the index, the manifest"
        with mounted(*shown) as mount:
            process = host.start(server.at(proxy.url), "--no-check", mount.path, *words, **s5cmd)
            ending = host.finish(process)
            assert ending.code == 0, ending.err
            assert mount.status()["blocks_compressed"] == 0
            assert_same(mount, host.stored)
        assert sent == [one for one in proxy.exchanges if one.makes_object]
        last = [path.rpartition("/")[2] for path in proxy.acls()][-2:]
        assert last == ["image.index", "image.manifest.xml"]
        assert set(proxy.acls().values()) == {"aws-exec-read"}


def assert_same(mount: Mount, folder: Path) -> None:
    for path in mount.path.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


# --- broken off, and gone on with ---


def kill_uploader(_: Host, process: subprocess.Popen[str], __: Callable[[], None]) -> None:
    process.kill()


def kill_daemon(host: Host, _: subprocess.Popen[str], __: Callable[[], None]) -> None:
    pid = host.pid_of("--foreground")
    assert pid
    os.kill(pid, signal.SIGKILL)


def cut_the_network(_: Host, __: subprocess.Popen[str], cut: Callable[[], None]) -> None:
    cut()


ONCE = {"RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "1", "AWS_MAX_ATTEMPTS": "1"}


@pytest.mark.parametrize(
    ("dest", "options", "breaks"),
    [
        ("sink:bucket/ami", (), kill_uploader),
        ("sink:bucket/ami", ("--without-fuse",), kill_uploader),
        ("sink:bucket/ami", (), kill_daemon),
        ("sink:bucket/ami", ("--without-fuse",), cut_the_network),
        ("s3://bucket/ami", (), cut_the_network),
        ("s3://bucket/ami", ("--without-fuse",), kill_uploader),
    ],
)
def test_it_goes_on(  # noqa: PLR0913, PLR0917  # fixtures
    dest: str,
    options: tuple[str, ...],
    breaks: Callable[[Host, subprocess.Popen[str], Callable[[], None]], None],
    host: Host,
    tmp_path: Path,
    user_keys: KeyPair,
) -> None:
    image = images.random_image(tmp_path / "disk", 25 * MIB)
    key: tuple[str | Path, ...] = ("--level", "1", "--user-key", user_keys.private)
    words = ("--no-check", image, dest, *options, *key)
    # One server: it keeps in memory which time a file had.
    with servers.rclone_s3(tmp_path / "store", tmp_path) as server:
        with wire(server.url) as cable:
            process = host.start(server.at(cable.url), *words, **slowly(tmp_path))
            assert eventually(lambda: bool(host.parts()), 60)
            breaks(host, process, cable.cut)
            before = broken_off(host, process, server)
        sent = gone_on_with(host, server, words)
    assert sent == {*PARTS, "image.manifest.xml"} - before
    assert_stored(image, host, user_keys)


@pytest.mark.parametrize(
    ("dest", "remembers"),
    [
        ("s3://bucket/ami", True),
        # It kept in memory which time a file had, so all is sent again.
        ("sink:bucket/ami", False),
    ],
)
def test_the_server_is_killed(
    dest: str, *, remembers: bool, host: Host, tmp_path: Path, user_keys: KeyPair
) -> None:
    image = images.random_image(tmp_path / "disk", 25 * MIB)
    key: tuple[str | Path, ...] = ("--level", "1", "--user-key", user_keys.private)
    words = ("--no-check", image, dest, *key)
    with servers.rclone_s3(tmp_path / "store", tmp_path) as server:
        process = host.start(server, *words, **slowly(tmp_path))
        assert eventually(lambda: bool(host.parts()), 60)
        os.kill(server.pid, signal.SIGKILL)
        before = broken_off(host, process, server)
    with servers.rclone_s3(tmp_path / "store", tmp_path) as server:
        sent = gone_on_with(host, server, words)
    assert sent == {*PARTS, "image.manifest.xml"} - (before if remembers else set())
    assert_stored(image, host, user_keys)


def slowly(folder: Path) -> dict[str, str]:
    """Give what makes either tool slow, and give up at once."""
    config = folder / "aws"
    config.write_text(SLOW_AWS)
    return {"RCLONE_BWLIMIT": "8M", "RCLONE_TRANSFERS": "1", "AWS_CONFIG_FILE": str(config)} | ONCE


def broken_off(host: Host, process: subprocess.Popen[str], server: servers.Server) -> set[str]:
    """See an upload fail; give what it has sent."""
    ending = host.finish(process)
    assert ending.code != 0
    assert "Traceback" not in ending.err
    # It may have a whole file, and be about to store it.
    assert eventually(lambda: servers.is_idle(server))
    before = host.parts() & {*PARTS, "image.manifest.xml"}
    assert before < set(PARTS)
    return before


def gone_on_with(host: Host, server: servers.Server, words: Sequence[str | Path]) -> set[str]:
    """Upload again; give what is sent."""
    with recording(server.url) as proxy:
        ending = host.finish(host.start(server.at(proxy.url), *words))
    assert ending.code == 0, ending.err
    assert "going on with the bundle of" in ending.err
    return {path.rpartition("/")[2] for path in proxy.acls()}


def assert_stored(image: Path, host: Host, keys: KeyPair) -> None:
    back = host.folder / "back"
    bundlefs("unbundle", host.stored / "image.manifest.xml", "--user-key", keys.private, "-o", back)
    assert back.read_bytes() == image.read_bytes()
