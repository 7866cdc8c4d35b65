"""Signals while they begin to be ignored: nothing is said of them, and none ends the program."""

import subprocess
import sys

import pytest

PELTED = """
import os, signal, subprocess, sys
from bundlefs.base import signals

number, parent = int(sys.argv[1]), os.getpid()
signal.signal(number, lambda *_: None)
if not (child := os.fork()):
    while os.getppid() == parent:
        os.kill(parent, number)
    os._exit(0)
for _ in range(100):
    signal.signal(number, lambda *_: None)
    signals.ignore()
os.kill(child, signal.SIGKILL)
print(subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True).stdout.decode())
"""


@pytest.mark.parametrize("number", [2, 15])
def test_none_is_told_of(number: int) -> None:
    words = [sys.executable, "-c", PELTED, str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    ignored = int(done.stdout.split()[1], 16)
    assert ignored >> number - 1 & 1, "a program that is started ignores it, too"
