"""Completions in their shells: bash and zsh at a terminal where TAB is pressed, and fish.

Each shell starts without anybody's settings and sources what `bundlefs completion` prints,
as the README has it.
"""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundlefs.cli import COMMANDS
from bundlefs.keys.regions import KNOWN_REGIONS
from tests.support.mounts import bundlefs, mounted
from tests.support.tools import clean_env, tool

SECONDS = 30
PROMPT = "ready>"
TAB = "\t"
FORGET_LINE = "\x15"
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])|[\r\x07]")

Complete = Callable[[str], str]
"""Types a line and TAB twice; gives what the shell then shows, in place of it or below it."""


def environment(home: Path) -> dict[str, str]:
    """Give what the shells start with: the tests' `bundlefs` first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean_env(home, PATH=path, TERM="dumb", LC_ALL="C.UTF-8")


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, argv: list[str], home: Path, setup: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (200, 160))
        try:
            self.process = subprocess.Popen(
                [tool("setsid"), "--ctty", *argv],
                env=environment(home),
                cwd=home,
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        finally:
            os.close(slave)
        # The quotes keep the echo of this line from being taken for the prompt.
        os.write(self.master, f"{setup}; PS1=ready'>'\n".encode())
        self.read_until(PROMPT)

    def read_until(self, wanted: str) -> str:
        """Read until the terminal has shown `wanted`; gives all that came, without its codes."""
        shown = ""
        deadline = time.monotonic() + SECONDS
        while wanted not in shown:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} was not shown: {shown!r}"
            if select.select([self.master], [], [], left)[0]:
                shown += ESCAPES.sub("", os.read(self.master, 65536).decode(errors="replace"))
        return shown

    def complete(self, line: str) -> str:
        """Press TAB after a line, twice: the first may only write what all answers share."""
        # What is typed after the answer shows that the answer is there.
        os.write(self.master, (line + TAB + TAB + "#end").encode())
        shown = self.read_until("#end")
        # The prompt may be drawn again for this line; after a command's answer it is a new one.
        # Only then does the shell read: before, the terminal would echo what is typed next.
        os.write(self.master, (FORGET_LINE + "echo r'ested'\n").encode())
        self.read_until(f"rested\n{PROMPT}")
        return shown

    def close(self) -> None:
        """End the shell."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@contextlib.contextmanager
def bash(home: Path) -> Iterator[Complete]:
    argv = [tool("bash"), "--norc", "--noprofile", "-i"]
    # Show all answers at once, even where they share a beginning, and never page by page.
    setup = (
        "bind 'set page-completions off'; bind 'set show-all-if-ambiguous on';"
        " . <(bundlefs completion bash)"
    )
    with contextlib.closing(Shell(argv, home, setup)) as shell:
        yield shell.complete


@contextlib.contextmanager
def zsh(home: Path) -> Iterator[Complete]:
    folder = home / "functions"
    folder.mkdir()
    (folder / "_bundlefs").write_text(bundlefs("completion", "zsh"))
    setup = f"fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; unsetopt prompt_cr"
    with contextlib.closing(Shell([tool("zsh"), "-f", "-i"], home, setup)) as shell:
        yield shell.complete


@contextlib.contextmanager
def fish(home: Path) -> Iterator[Complete]:
    folder = home / ".config" / "fish" / "completions"
    folder.mkdir(parents=True)
    (folder / "bundlefs.fish").write_text(bundlefs("completion", "fish"))

    def complete(line: str) -> str:
        return subprocess.run(
            [tool("fish"), "-c", "complete --do-complete $argv[1]", line],
            env=environment(home),
            cwd=home,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        ).stdout

    yield complete


@pytest.fixture(scope="module", params=[bash, zsh, fish], ids=["bash", "zsh", "fish"])
def complete(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Complete]:
    with request.param(tmp_path_factory.mktemp("home")) as shell:
        yield shell


def words(shown: str) -> set[str]:
    return set(re.split(r"[\s#]+", shown))


def test_commands(complete: Complete) -> None:
    assert set(COMMANDS) <= words(complete("bundlefs "))


def test_a_command_that_is_begun(complete: Complete) -> None:
    assert "unbundle" in words(complete("bundlefs unb"))


def test_options_of_the_command_alone(complete: Complete) -> None:
    found = words(complete("bundlefs umount --"))
    assert "--lazy" in found
    assert "--region" not in found


def test_an_option_that_is_begun(complete: Complete) -> None:
    assert "--block-device-mapping" in words(complete("bundlefs mount --bl"))


def test_regions(complete: Complete) -> None:
    found = words(complete("bundlefs mount --region "))
    assert set(KNOWN_REGIONS) <= found
    assert {"cn-north-1", "cn-northwest-1"} <= words(complete("bundlefs mount --region cn-"))


def test_values_of_options(complete: Complete) -> None:
    assert {"machine", "kernel", "ramdisk"} <= words(complete("bundlefs mount --type "))
    assert set("0123456789") <= words(complete("bundlefs bundle --level "))


def test_the_shells_of_completion(complete: Complete) -> None:
    assert {"bash", "zsh", "fish"} <= words(complete("bundlefs completion "))


def test_a_live_mount(complete: Complete, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(4096))
    where = tmp_path / "a-mountpoint"
    options = ("--state", "none")
    assert str(where) not in words(complete("bundlefs umount "))
    with mounted(image, where, *options), mounted(image, tmp_path / "another", *options):
        both = words(complete("bundlefs umount "))
        assert {str(where), str(tmp_path / "another")} <= both
        assert str(where) in words(complete(f"bundlefs status {tmp_path}/a-"))


def test_files(complete: Complete, tmp_path: Path) -> None:
    for name in ("one.pem", "two.pem"):
        (tmp_path / name).touch()
    assert "one.pem" in complete(f"bundlefs mount --user-key {tmp_path}/o")


def test_options_of_mount8(complete: Complete) -> None:
    assert "allow-other" in complete("bundlefs mount -o allow-o")


def test_values_in_options_of_mount8(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "one.pem").touch()
    for begun, found in (
        ("level=", set("0123456789")),
        ("eager,region=cn-", {"cn-north-1", "cn-northwest-1"}),
        ("log_format=", {"text", "json"}),
        (f"eager,user_key={tmp_path}/o", {f"{tmp_path}/one.pem"}),
    ):
        shown = complete(f"bundlefs mount -o {begun}")
        values = {word.rpartition("=")[2] for word in words(shown)}
        assert found <= values, shown


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """By the protocol of argcomplete's scripts; each shell has its own way to show it."""
    name = b"disk-\xe9.raw"
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).touch()
    (tmp_path / "disks").mkdir()
    line = "bundlefs mount di"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    answer = tmp_path / "answer"
    done = subprocess.run(
        [sys.executable, "-m", "bundlefs"],
        env=environment(tmp_path)
        | asked
        | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONIOENCODING": "utf-8:strict"},
        cwd=tmp_path,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert {each.rstrip(b" ") for each in answer.read_bytes().split(b"\v")} == {name, b"disks/"}
