"""Standard streams that are closed, full or unread: the exit code says what was done."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.mounts import BUNDLEFS, settings

COMMANDS = {
    "help": (["--help"], 0, True),
    "help of a command": (["mount", "--help"], 0, True),
    "version": (["--version"], 0, True),
    "a result": (["state", "list"], 0, True),
    "a long result": (["completion", "bash"], 0, True),
    "a failure": (["status", "/nowhere"], 1, False),
    "wrong usage by argparse": (["mount", "--nothing"], 2, False),
    "wrong usage by us": (["mount", "--size", "1", "a", "b", "c"], 2, False),
}
"""Arguments, exit code, and whether it writes to stdout."""

STREAMS = ("read", "unread", "full", "closed")


@contextmanager
def stream(kind: str) -> Iterator[int]:
    """Give a descriptor to write to; for one that is closed it does not matter."""
    if kind == "full":
        number = os.open("/dev/full", os.O_WRONLY)
    elif kind == "unread":
        reader, number = os.pipe()
        os.close(reader)
    else:
        number = os.open(os.devnull, os.O_WRONLY)
    try:
        yield number
    finally:
        os.close(number)


def ended(words: list[str], out: str, err: str, **env: str) -> int:
    """Return the exit code of a command with such a stdout and stderr."""
    closed = "".join(f" {n}>&-" for n, kind in ((1, out), (2, err)) if kind == "closed")
    with stream(out) as stdout, stream(err) as stderr:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@"{closed}', "sh", *BUNDLEFS, *words],
            env=settings(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            timeout=60,
            check=False,
        )
    return done.returncode


@pytest.mark.parametrize("command", COMMANDS)
def test_exit_codes(command: str) -> None:
    words, code, writes = COMMANDS[command]
    lost = {"unread": 141, "full": 1} if writes else {}
    for out, err in itertools.product(STREAMS, STREAMS):
        found = ended(words, out, err)
        assert (out, err, found) == (out, err, lost.get(out, code))


@pytest.mark.parametrize(("out", "code"), [("read", 0), ("unread", 141), ("full", 1)])
def test_exit_codes_without_buffers(out: str, code: int) -> None:
    assert ended(["state", "list"], out, "unread", PYTHONUNBUFFERED="1") == code


@pytest.mark.parametrize("words", [["--help"], ["state", "list"]])
def test_what_is_said_of_a_full_disk(words: list[str]) -> None:
    with stream("full") as full:
        done = subprocess.run(
            [*BUNDLEFS, *words],
            env=settings(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "bundlefs: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


UPLOAD = ("-m", "bundlefs.cli.uploading")


@pytest.mark.parametrize(("words", "code"), [([], 2), (["/nowhere", "s3://b/c"], 1)])
@pytest.mark.parametrize("err", STREAMS)
def test_bundlefs_upload(words: list[str], code: int, err: str) -> None:
    closed = " 2>&-" if err == "closed" else ""
    program = ["sh", "-c", f'exec "$@"{closed}', "sh", sys.executable, *UPLOAD, *words]
    with stream(err) as stderr:
        assert subprocess.run(program, stderr=stderr, check=False).returncode == code


PROGRAM = """
import sys
from bundlefs.cli import streams
from bundlefs.cli.common import reported

def work():
    print("a result")
    print("a word", file=sys.stderr)
    streams.say("a word")
    sys.stderr.write("half a line")
    return {code}

streams.prepare()
sys.exit(reported(work))
"""


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("err", STREAMS)
def test_a_stderr_that_is_gone_changes_nothing(code: int, err: str) -> None:
    closed = " 2>&-" if err == "closed" else ""
    program = [sys.executable, "-c", PROGRAM.format(code=code)]
    with stream(err) as stderr:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@"{closed}', "sh", *program],
            stdout=subprocess.PIPE,
            stderr=stderr,
            check=False,
        )
    assert (done.returncode, done.stdout) == (code, b"a result\n")
