"""contrib/container/bundle-and-upload, as a container runs it: real mounts, rclone, an S3 server.

Whatever happens, no mount and no process may be left, and the exit code must tell.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.mount.commands import MARK, POWERLESS, Ending, assert_nothing_left, eventually
from tests.support import images, servers
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, leave_nothing, mounts_below
from tests.support.proxy import Recorder, recording
from tests.support.tools import ACCOUNT, clean_env

SCRIPT = Path(__file__).parents[2] / "contrib/container/bundle-and-upload"
TARGET = "sink:bucket/ami/one"
LOCATION = "bucket/ami/one/image.manifest.xml"
NAMES = ["image.manifest.xml", "image.part.00", "image.part.01"]
MIB = images.MIB


class Sink:
    """An S3 server behind a recording proxy, its bucket, and the settings that lead there."""

    def __init__(self, server: servers.Server, proxy: Recorder, folder: Path) -> None:
        self.folder = folder / "store"
        self.proxy = proxy
        self.started: list[subprocess.Popen[str]] = []
        self.mark = uuid.uuid4().hex
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.env = servers.settings(
            server.at(proxy.url),
            folder,
            TMPDIR=str(self.scratch),
            XDG_STATE_HOME=str(folder / "states"),
            BUNDLEFS_ACCOUNT=ACCOUNT,
            RCLONE_CONFIG="/dev/null",
            **{MARK: self.mark},
        )

    def start(
        self, *words: str | Path, program: Sequence[str] = (), **env: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*program, str(SCRIPT), *map(str, words)],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        leave_nothing(self.started, self.scratch)

    def finish(self, process: subprocess.Popen[str]) -> Ending:
        """Wait for the script; nothing of it may be left."""
        out, err = process.communicate(timeout=60)
        ending = Ending(process.returncode, out, err, self.mark)
        assert_nothing_left(ending)
        assert self.live() == []
        assert list(self.scratch.iterdir()) == []
        return ending

    def live(self) -> list[Path]:
        """Give the mounts that are there: the script mounts in its temporary folder."""
        return mounts_below(self.scratch)

    def sent(self) -> list[str]:
        """Give the names of the objects that were made, in that order."""
        return [path.rpartition("/")[2] for path in self.proxy.acls()]

    def stored(self) -> list[str]:
        folder = self.folder / "bucket/ami/one"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def sink() -> Iterator[Sink]:
    # Not in pytest's folder: who has no rights must reach it as well.
    with tempfile.TemporaryDirectory(prefix="bundlefs-test-") as name:
        folder = Path(name)
        # rclone's server answers 500 where two files at a time want a folder that is not there.
        (folder / "store/bucket/ami/one").mkdir(parents=True)
        with (
            servers.rclone_s3(folder / "store", folder) as server,
            recording(server.url) as proxy,
        ):
            made = Sink(server, proxy, folder)
            try:
                yield made
            finally:
                made.end()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk.raw", 11 * MIB)


def assert_uploaded(sink: Sink, ending: Ending, tmp_path: Path, *options: str | Path) -> None:
    """All is there, in the right order and with the ACL, and gives the image again."""
    assert ending.code == 0, ending.err
    assert f"register-image --image-location {LOCATION} " in ending.out
    assert sink.stored() == NAMES
    assert sorted(sink.sent()) == NAMES
    assert sink.sent()[-1] == NAMES[0], "the manifest is the last"
    assert set(sink.proxy.acls().values()) == {"aws-exec-read"}
    assert sink.proxy.failures() == []
    manifest = sink.folder / "bucket/ami/one" / NAMES[0]
    bundlefs("unbundle", manifest, *options, "-o", tmp_path / "back")


def test_it_mounts_uploads_and_unmounts(
    sink: Sink, image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    key = user_keys.private
    ending = sink.finish(sink.start(image, TARGET, "--user-key", key))
    assert_uploaded(sink, ending, tmp_path, "--user-key", key)
    assert (tmp_path / "back").read_bytes() == image.read_bytes()


def test_again_it_sends_nothing(sink: Sink, image: Path) -> None:
    sink.finish(sink.start(image, TARGET))
    before = sink.sent()
    ending = sink.finish(sink.start(image, f"{TARGET}/"))
    assert ending.code == 0, ending.err
    assert f"register-image --image-location {LOCATION} " in ending.out
    assert "going on with the bundle of" in ending.err
    assert sink.sent() == before


def test_without_rights_it_goes_by_a_folder(
    sink: Sink, image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    key = user_keys.private
    folder = tmp_path / "out"
    words = ("--folder", folder, image, TARGET, "--user-key", key)
    ending = sink.finish(sink.start(*words, program=POWERLESS))
    assert_uploaded(sink, ending, tmp_path, "--user-key", key)
    assert sorted(path.name for path in folder.iterdir()) == NAMES


def test_without_rights_it_keeps_a_few_parts(
    sink: Sink, image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    """Nothing can be mounted, and there is no folder for the bundle."""
    key = user_keys.private
    ending = sink.finish(sink.start(image, TARGET, "--user-key", key, program=POWERLESS))
    assert_uploaded(sink, ending, tmp_path, "--user-key", key)
    assert "nothing is mounted: " in ending.err


def test_a_failing_mount_is_passed_on(sink: Sink, image: Path) -> None:
    ending = sink.finish(sink.start(image, TARGET, "--account", "12"))
    assert ending.code == 2
    assert "the account '12' is not" in ending.err
    assert sink.stored() == []


def test_a_failing_upload_is_passed_on(sink: Sink, image: Path) -> None:
    env = {"RCLONE_CONFIG_SINK_SECRET_ACCESS_KEY": "wrong", "RCLONE_RETRIES": "1"}
    ending = sink.finish(sink.start(image, TARGET, **env))
    assert ending.code == 1
    assert "bundlefs-upload: `rclone lsjson sink:bucket` failed: " in ending.err
    assert ending.out == ""
    assert sink.stored() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unmounts(number: signal.Signals, code: int, sink: Sink, tmp_path: Path) -> None:
    slow = images.text_image(tmp_path / "slow", 6 * MIB)
    process = sink.start(slow, TARGET, "--level", "9", "--jobs", "1")
    assert eventually(lambda: bool(sink.live()))
    assert process.poll() is None
    process.send_signal(number)
    ending = sink.finish(process)
    assert ending.code == code, ending.err
    assert "image.manifest.xml" not in sink.stored()


def test_after_a_crash_of_the_mount_nothing_stays(sink: Sink, tmp_path: Path) -> None:
    slow = images.text_image(tmp_path / "slow", 6 * MIB)
    process = sink.start(slow, TARGET, "--level", "9", "--jobs", "1")
    assert eventually(lambda: bool(sink.live()))
    for pid in Ending(0, "", "", sink.mark).processes():
        # One of them may have ended meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"--foreground" in words:
                os.kill(pid, signal.SIGKILL)
    ending = sink.finish(process)
    assert ending.code not in (0, 2)
    assert "image.manifest.xml" not in sink.stored()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["disk.raw"],
        ["disk.raw", "no-remote/folder"],
        ["disk.raw", "sink:bucket"],
        ["--folder"],
        ["--folder", "out", "disk.raw"],
        ["--account", "123456789012", "disk.raw", "s3:bucket/one"],
    ],
)
def test_wrong_usage(words: list[str], tmp_path: Path) -> None:
    command = [str(SCRIPT), *words]
    done = subprocess.run(
        command, env=clean_env(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: bundle-and-upload ")
