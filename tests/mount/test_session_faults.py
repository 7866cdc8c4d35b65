"""A fault around the handlers of a mount: before it is ready, or in what shows its progress."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support import images
from tests.support.mounts import detach, is_mounted, require_fuse, settings

PART = 10 * images.MIB

LAUNCH = (
    "import sys; sys.exit(bundlefs.cli.main(['mount', '-f', '--state', 'none', *sys.argv[1:]]))"
)


@contextmanager
def launched(hook: str, image: Path, mountpoint: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `bundlefs mount -f` with a hook, Python text; nothing is left at the end."""
    require_fuse()
    imports = "import os, signal, time, trio, pyfuse3, bundlefs.cli"
    imports += ", bundlefs.fuse.session, bundlefs.bundling.bundle"
    program = f"{imports}\n{hook}\n{LAUNCH}"
    command = [sys.executable, "-c", program, str(image), str(mountpoint)]
    with subprocess.Popen(command, env=settings(), stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
            detach(mountpoint)


FAILS_AT_ONCE = """
async def fail(**_):
    await trio.sleep(0.3)
    raise RuntimeError("on purpose")
pyfuse3.main = fail
"""
TOLD_TO_END_AT_ONCE = """
run = trio.run
def late(*words):
    os.kill(os.getpid(), signal.SIGTERM)
    return run(*words)
trio.run = late
"""
CANNOT_SHOW_PROGRESS = """
bundlefs.fuse.session._TICK_SECONDS = 0.02
status, calls = bundlefs.bundling.bundle.Bundle.status, []
def broken(bundle):
    calls.append(1)
    if len(calls) == 5:
        raise OSError(5, "the terminal is gone")
    return status(bundle)
bundlefs.bundling.bundle.Bundle.status = broken
"""


def test_a_mount_that_fails_before_it_is_ready_ends(image: Path, mountpoint: Path) -> None:
    with launched(FAILS_AT_ONCE, image, mountpoint) as process:
        assert process.wait(5) == 1
        assert not is_mounted(mountpoint)


def test_a_mount_that_is_told_to_end_before_it_is_ready_ends(image: Path, mountpoint: Path) -> None:
    with launched(TOLD_TO_END_AT_ONCE, image, mountpoint) as process:
        process.wait(10)
        assert not is_mounted(mountpoint)


def test_a_progress_display_that_fails_ends_nothing(image: Path, mountpoint: Path) -> None:
    with launched(CANNOT_SHOW_PROGRESS, image, mountpoint) as process:
        assert eventually(lambda: is_mounted(mountpoint))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert (mountpoint / "image.part.00").stat().st_size == PART
