"""What `bundlefs unbundle` leaves behind when it fails or is ended on the way: nothing."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.interop.back import MIB, leftovers, refused, the_line
from tests.mount.commands import eventually, in_namespace
from tests.support import bundles, images, oracles
from tests.support.bundles import BUNDLERS, Made, Stages, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, settings


@pytest.mark.parametrize("force", [False, True])
def test_a_wrong_tar_digest_leaves_nothing(
    mixed_bundle: Made, tmp_path: Path, out: Path, user_keys: KeyPair, *, force: bool
) -> None:
    copy = mixed_bundle.copy(tmp_path / "copy")
    copy.rewrite(user_keys, digest="0" * 40)
    if force:
        (out / "disk").write_text("dear")
    words = ("unbundle", copy.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    line = refused(*words, *(("--force",) if force else ()))
    assert "0" * 40 in line
    assert oracles.sha1sum([mixed_bundle.tar])[0] in line
    assert {path.name: path.read_text() for path in out.iterdir()} == (
        {"disk": "dear"} if force else {}
    )


@pytest.fixture
def endless(tmp_path: Path, own_workshop: Workshop) -> Made:
    """A bundle of 16 GiB of zeros, which takes longer than anybody waits."""
    size = 16384
    stream = bundles.zeros_gzip(bundles.member("image", size * MIB), size)
    compressed = tmp_path / "gz"
    compressed.write_bytes(stream)
    tar = images.sparse_image(tmp_path / "tar", 1, {})
    image = images.sparse_image(tmp_path / "zeros", size * MIB, {})
    return own_workshop.seal(Stages(image, tar, compressed), BUNDLERS["ec2-ami-tools"])


def written_to(pid: int, folder: Path) -> int:
    """Return the bytes of a process' open files in a folder, though they have no name there."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += file.stat().st_size if folder in file.readlink().parents else 0
    return found


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
    ],
)
def test_ended_in_the_middle(
    endless: Made, out: Path, user_keys: KeyPair, number: int, expected: int
) -> None:
    words = ["unbundle", endless.manifest, "--user-key", user_keys.private]
    command = [*BUNDLEFS, *map(str, words), "-o", str(out / "disk")]
    with subprocess.Popen(command, env=settings(), stderr=subprocess.PIPE) as process:
        assert eventually(lambda: written_to(process.pid, out) > 0)
        during = leftovers(out)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert b"Traceback" not in said
    assert process.returncode == expected
    assert (during, leftovers(out)) == ([], []), "half an image has no name"


FULL = """
mount -t tmpfs -o size=1m none "$1"
cd "$1"
shift
"$@" -o disk 2>&1 || echo "code $?"
ls -A
"""


def test_a_full_disk(mixed_bundle: Made, out: Path, user_keys: KeyPair) -> None:
    words = ["unbundle", mixed_bundle.manifest, "--user-key", user_keys.private]
    command = [*in_namespace(FULL, out, *BUNDLEFS), *map(str, words)]
    shown = subprocess.run(command, env=settings(), capture_output=True, text=True, check=True)
    *lines, code = shown.stdout.splitlines(keepends=True)
    assert the_line("".join(lines)).endswith("cannot write disk: No space left on device")
    assert code == "code 1\n"  # and `ls` shows nothing behind it


def test_a_full_pipe(mixed_bundle: Made, user_keys: KeyPair) -> None:
    words = ["unbundle", mixed_bundle.manifest, "--user-key", user_keys.private, "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*BUNDLEFS, *map(str, words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=settings(),
            check=False,
        )
    assert ended.returncode == 1
    assert the_line(ended.stderr).endswith("standard output: No space left on device")


def test_a_reader_that_leaves(mixed_bundle: Made, user_keys: KeyPair) -> None:
    words = ["unbundle", mixed_bundle.manifest, "--user-key", user_keys.private, "-o", "-"]
    pipe = subprocess.PIPE
    command = [*BUNDLEFS, *map(str, words)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=settings()) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == images.text(4)
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert the_line(said.decode()).endswith("standard output: Broken pipe")
