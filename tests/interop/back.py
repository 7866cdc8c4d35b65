"""The commands of the way back, run as a user runs them, and what must hold of each of them."""

import contextlib
import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundlefs.cli import main
from tests.mount.commands import Ending, attempt
from tests.support.mounts import BUNDLEFS, settings

MIB = 1 << 20


def done(
    *words: str | Path,
    program: Sequence[str] = BUNDLEFS,
    env: Mapping[str, str] | None = None,
) -> Ending:
    """Run a command that must succeed."""
    ending = attempt(*words, program=program, env=env)
    assert ending.code == 0, ending
    assert "Traceback" not in ending.err
    return ending


def refused(
    *words: str | Path,
    code: int = 1,
    program: Sequence[str] = BUNDLEFS,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command that must end in one line on stderr and nothing on stdout; gives the line."""
    ending = attempt(*words, program=program, env=env)
    assert (ending.code, ending.out) == (code, ""), ending
    return the_line(ending.err)


def within(*words: str | Path) -> tuple[int, str, str]:
    """Run a command in this process, which saves the time to start one: code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def the_line(err: str) -> str:
    """Return the one line that an error is told in."""
    line, newline, more = err.partition("\n")
    assert (newline, more) == ("\n", ""), err
    assert line.startswith("bundlefs: "), line
    assert "unexpected" not in line
    return line


def report(text: str) -> dict[str, tuple[str, str]]:
    """Return what `verify` printed: for each check its outcome and what it says."""
    found = {}
    for line in text.splitlines():
        outcome, _, rest = line.partition(" ")
        what, _, says = rest.strip().partition(": ")
        found[what] = (outcome, says)
    return found


def peak_memory(*words: str | Path) -> tuple[int, int]:
    """Run a command without asking for its output; give its exit code and most memory, bytes."""
    command = [*BUNDLEFS, *map(str, words)]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=settings(), stdin=null, stdout=null, stderr=null) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


def leftovers(folder: Path) -> list[str]:
    """List a folder, hidden files and all."""
    return sorted(path.name for path in folder.iterdir())
