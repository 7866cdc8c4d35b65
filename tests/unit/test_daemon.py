"""What the parent of a child in the background says, however the child ends."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from bundlefs.cli.common import reported
from bundlefs.fuse.daemon import in_background

def work(ready):
    print("working", file=sys.stderr)
    {work}

sys.exit(reported(lambda: in_background(work)))
"""
ENDED = "bundlefs: the mount was {} before it was ready"


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("ready(); return 0", 0, []),
        # What is wrong later is for the log.
        ("ready(); return 3", 0, []),
        # A child that returns another code than 0 has said why.
        ("return 3", 3, []),
        ("return 0", 1, [ENDED.format("unmounted or told to end")]),
        ("os.kill(os.getpid(), 9)", 1, [ENDED.format("killed by signal 9")]),
    ],
)
def test_what_the_parent_says(work: str, code: int, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(work=work)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines() == ["working", *said]


FORKING = """
import os, signal, sys, time
from bundlefs.base import signals
from bundlefs.cli.common import reported
from bundlefs.fuse.daemon import in_background

def work(ready):
    print("working", file=sys.stderr)
    time.sleep(60)
    return 0

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
def run():
    with signals.raised():
        return in_background(work)

sys.exit(reported(run))
"""


def test_a_signal_while_it_forks_is_heard_and_the_child_is_gone() -> None:
    # Its stderr is the child's too: it ends when both have.
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in done.stderr
