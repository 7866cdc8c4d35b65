"""Bundles that `bundlefs bundle` writes: how it is run, broken off, and what there is then."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import oracles
from tests.support.folders import contents
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, COMMAND_SECONDS, settings

MIB = 1 << 20
PART = 10 * MIB
PROMPT = 15
"""Seconds within which a command must have said that it failed; it takes less than one."""
FAST = ("--level", "1")
SLOW = ("--level", "9", "--jobs", "1")


def parts_in(folder: Path) -> dict[str, bytes]:
    """Give the parts in a folder, those that are being written too."""
    return {name: data for name, data in contents(folder).items() if ".part." in name}


def stamps(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Give what tells whether a file has been written again."""
    found = {name: (folder / name).stat() for name in names}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def undone(folder: Path, keys: KeyPair, image: Path) -> None:
    """Have stock tools undo the bundle and compare it with its image."""
    manifest = folder / "image.manifest.xml"
    listed = [folder / name for name in oracles.part_names(manifest)]
    assert oracles.sha1sum(listed) == oracles.part_digests(manifest)
    assert oracles.verify_signature(manifest, keys.public, folder.parent) == "Verified OK"
    oracles.compare_streaming(listed, oracles.secrets(manifest, keys.private), image)


def piped(
    *words: str | Path, data: bytes | Path, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command that reads `data` from a pipe; give its exit code and stderr."""
    ended = subprocess.run(
        [*BUNDLEFS, *map(str, words)],
        env=settings(env),
        input=data if isinstance(data, bytes) else data.read_bytes(),
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert ended.stdout == b""
    return ended.returncode, ended.stderr.decode()


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [*BUNDLEFS, *map(str, words)],
        env=settings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], path: Path) -> None:
    """Wait until a file is there that a process is to make."""
    deadline = time.monotonic() + COMMAND_SECONDS
    while not path.exists():
        assert process.poll() is None, "it ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
