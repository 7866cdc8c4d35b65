"""A host with bundlefs installed where mount(8) finds it, of which nothing stays on this machine.

mount(8) starts its helpers in /sbin alone, and takes PATH away from them: a `bundlefs` in a
virtual environment is not found. So the tests have a mount namespace in which it is elsewhere too.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mount.commands import ALONE, eventually
from tests.support.mounts import settings
from tests.support.processes import ended
from tests.support.tools import tool

INSTALL = """
mount -t tmpfs none "$1"
mkdir "$1/real" "$1/sbin" "$1/own"
mount --bind /usr/sbin "$1/real"
ln -s "$1"/real/* "$1/sbin"
ln -s "$2/mount.bundlefs" "$1/sbin"
ln -s "$2/bundlefs" "$1/own"
mount --bind "$1/sbin" /usr/sbin
mount --bind "$1/own" /usr/local/sbin
echo ready
exec sleep infinity
"""

ENTER = ("--mount", "--root", "--wd")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Host:
    """The namespace, by a process in it."""

    pid: int

    def do(self, *words: str | Path) -> Done:
        """Run a command there, without a terminal and without a word on accounts."""
        environment = settings()
        del environment["BUNDLEFS_ACCOUNT"]
        done = subprocess.run(
            # By its root as well: where the tests run in a chroot, that of its mounts is another.
            [tool("nsenter"), f"--target={self.pid}", *ENTER, "--", *map(str, words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def sees(self, path: Path) -> Path:
        """Give the path at which this machine finds a path of the host's."""
        return Path(f"/proc/{self.pid}/root{path}")

    def mounts(self, path: Path) -> list[str]:
        """Give the types of what is mounted on exactly this path."""
        table = Path(f"/proc/{self.pid}/mountinfo").read_bytes()
        rows = [line.split(b" ") for line in table.split(b"\n") if line]
        return [row[row.index(b"-") + 1].decode() for row in rows if row[4] == bytes(path)]

    def status(self, mountpoint: Path) -> dict[str, Any]:
        """Give what the mount says of itself."""
        path = self.sees(mountpoint) / ".bundlefs/status.json"
        status: dict[str, Any] = json.loads(path.read_bytes())
        return status

    def daemon(self, mountpoint: Path) -> int:
        """Give the process of the mount."""
        return int(self.status(mountpoint)["pid"])

    def umount(self, mountpoint: Path) -> None:
        """Unmount as users of mount(8) do; the daemon ends by itself."""
        pid = self.daemon(mountpoint)
        assert self.do("umount", mountpoint) == Done(0, "", "")
        assert ended(pid, 20), f"the daemon, pid {pid}, outlived its mount"
        assert self.mounts(mountpoint) == []


@contextlib.contextmanager
def private_host(scratch: Path) -> Iterator[Host]:
    """Make the host for the length of a `with`; what is mounted in it goes with it."""
    folder = str(Path(sys.executable).parent)
    shell = (tool("sh"), "-ec", ALONE + INSTALL, "sh")
    process = subprocess.Popen(
        [tool("unshare"), "--mount", *shell, str(scratch), folder],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield Host(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def free_again(host: Host, mountpoint: Path) -> Iterator[None]:
    """See to it that nothing stays mounted there, whatever a test does."""
    try:
        yield
    finally:
        while host.mounts(mountpoint):
            host.do("umount", "--lazy", mountpoint)
        assert eventually(lambda: host.mounts(mountpoint) == [])
