"""`bundlefs bundle` of a pipe: one of a known size, and one that has to be kept until its end."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.interop.back import leftovers, the_line
from tests.interop.bundled import MIB, PART, PROMPT, piped, undone
from tests.support import images
from tests.support.folders import tiny
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, COMMAND_SECONDS, settings


@pytest.mark.parametrize("size", [1, 4096, 3 * PART])
def test_a_pipe_of_a_known_size(size: int, user_keys: KeyPair, tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "disk", size)
    options = ("--user-key", user_keys.private, "--size", str(size))
    code, said = piped("bundle", *options, "-", tmp_path / "dest", data=path)
    assert (code, "warning" in said) == (0, False), said
    undone(tmp_path / "dest", user_keys, path)


def test_a_pipe_of_unknown_size(user_keys: KeyPair, sparse: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    options = ("--user-key", user_keys.private, "-", tmp_path / "dest")
    code, said = piped("bundle", *options, data=sparse, env={"TMPDIR": str(spool)})
    assert code == 0
    [warning] = [line for line in said.splitlines() if "warning" in line]
    assert "--size" in warning
    assert str(spool) in warning
    undone(tmp_path / "dest", user_keys, sparse)
    assert leftovers(spool) == []
    # A state with a key in it, under a name that never comes again, would stay for ever.
    assert not list((tmp_path / "state-home").rglob("*.state"))


@pytest.mark.parametrize(
    ("size", "given"), [("100", 99), ("100", 101), ("100", 0), ("15M", 12 * MIB), ("11M", 12 * MIB)]
)
def test_a_pipe_of_another_size(size: str, given: int, tmp_path: Path) -> None:
    data = b"".join(images.noise(given))
    code, said = piped("bundle", "--size", size, "-", tmp_path / "dest", data=data)
    assert code == 1
    line = the_line(said)
    counts = [int(number) for number in re.findall(r"\d{2,}", line)]
    wanted = int(size.replace("M", "")) * (MIB if size.endswith("M") else 1)
    assert wanted in counts
    assert set(leftovers(tmp_path / "dest")) <= {"image.part.00"}


def test_an_empty_pipe(tmp_path: Path) -> None:
    code, said = piped("bundle", "-", tmp_path / "dest", data=b"")
    assert code == 1
    assert "empty" in said.splitlines()[-1]
    assert leftovers(tmp_path / "dest") == []


@pytest.mark.parametrize("sized", [True, False])
def test_no_input_at_all(*, sized: bool, tmp_path: Path) -> None:
    script = 'exec "$@" <&-'
    size = ("--size", "100") if sized else ()
    command = ["sh", "-c", script, "sh", *BUNDLEFS, "bundle", *size, "-", str(tmp_path / "dest")]
    ended = subprocess.run(
        command, env=settings(), capture_output=True, text=True, timeout=PROMPT, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("bundlefs: ")
    assert "unexpected" not in ended.stderr


def test_no_room_to_keep_a_pipe(tmp_path: Path) -> None:
    with tiny(tmp_path / "spool", MIB) as spool:
        env = {"TMPDIR": str(spool)}
        code, said = piped("bundle", "-", tmp_path / "dest", data=bytes(3 * MIB), env=env)
        assert leftovers(spool) == []
    assert code == 1
    last = said.splitlines()[-1]
    assert str(spool) in last
    assert "No space left" in last
    assert "--size" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_pipe_leaves_no_image_behind(number: int, tmp_path: Path) -> None:
    """It is a plain image, and has no name from its first byte on."""
    spool = tmp_path / "spool"
    spool.mkdir()
    process = subprocess.Popen(
        [*BUNDLEFS, "bundle", "-", str(tmp_path / "dest")],
        env=settings({"TMPDIR": str(spool)}),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        assert process.stderr
        assert str(spool).encode() in process.stderr.readline()
        # More than a pipe holds: some of it has arrived.
        process.stdin.write(bytes(4 * MIB))
        process.stdin.flush()
        during = leftovers(spool)
        process.send_signal(number)
        process.wait(COMMAND_SECONDS)
    assert during == []
    assert leftovers(spool) == []
