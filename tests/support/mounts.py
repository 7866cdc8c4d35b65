"""Real mounts, made as a user makes them: `bundlefs mount` as a command, in the background.

pyfuse3 keeps one session in module globals, so every mount is a process of its
own. Whatever a test does, nothing stays mounted and no daemon stays behind; a
daemon that has to be killed for that fails the test.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import ended, waiting
from tests.support.tools import ACCOUNT

BUNDLEFS = (sys.executable, "-m", "bundlefs")
COMMAND_SECONDS = 60
END_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Mount:
    """A live mount: the image, the folder it shows, and the daemon's process id."""

    image: Path
    path: Path
    pid: int

    def status(self) -> dict[str, Any]:
        """Return what `.bundlefs/status.json` says now."""
        return read_status(self.path)

    def umount(self) -> None:
        """End the mount by `bundlefs umount`."""
        bundlefs("umount", self.path)

    def kill(self) -> None:
        """End the daemon as a crash would, and take its dead mount away as a user would."""
        os.kill(self.pid, signal.SIGKILL)
        assert ended(self.pid, END_SECONDS), f"the daemon, pid {self.pid}, outlived SIGKILL"
        bundlefs("umount", "--lazy", self.path)

    def parts(self) -> list[Path]:
        """List the parts by name; this waits for the whole index pass."""
        return sorted(self.path.glob("*.part.*"))

    def manifest(self, name: str = "image.manifest.xml") -> Path:
        """Return the path of a manifest."""
        return self.path / name


def require_fuse() -> None:
    """Fail where no mount is possible.

    Raises:
        AssertionError: There is no FUSE here; says what to do.
    """
    missing = "/dev/fuse is not there, so no mount test can run: `modprobe fuse`, or start the"
    assert Path("/dev/fuse").exists(), f"{missing} container with --device /dev/fuse"


def settings(env: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a bundlefs command: the machine's, an account, and `env`."""
    return dict(os.environ) | {"BUNDLEFS_ACCOUNT": ACCOUNT} | (env or {})


def bundlefs(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a bundlefs command that must succeed; gives its stdout.

    Raises:
        AssertionError: It ended with another code than 0; the text shows its stderr.
        subprocess.TimeoutExpired: It did not return, or left its output open behind it.
    """
    done = subprocess.run(
        [*BUNDLEFS, *map(str, words)],
        env=settings(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"bundlefs {words} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def read_status(mountpoint: Path) -> dict[str, Any]:
    """Return the status of the mount at `mountpoint`."""
    status: dict[str, Any] = json.loads((mountpoint / ".bundlefs/status.json").read_bytes())
    return status


def mount_table() -> list[str]:
    """Give the lines of the kernel's table of mounts; another's may have any bytes in its name."""
    table = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    return [line for line in table.split("\n") if line]


def is_mounted(path: Path) -> bool:
    """Ask the kernel's table, not the file system: a stuck daemon must not hang the answer."""
    escaped = str(path.absolute()).replace("\\", "\\134").replace(" ", "\\040")
    escaped = escaped.replace("\n", "\\012").replace("\t", "\\011")
    return any(line.split(" ")[4] == escaped for line in mount_table())


def detach(path: Path) -> None:
    """Take the mount away even while files of it are open."""
    for command in (["fusermount3", "-uz"], ["umount", "-l"]):
        if is_mounted(path):
            with contextlib.suppress(FileNotFoundError):
                subprocess.run([*command, str(path)], capture_output=True, check=False)


def mounts_below(folder: Path) -> list[Path]:
    """Give the mounts whose line names a folder: those in it, and those of an image in it."""
    return [Path(line.split(" ")[4]) for line in mount_table() if str(folder) in line]


def leave_nothing(processes: Iterable[subprocess.Popen[str]], folder: Path) -> None:
    """Leave nothing of a test that failed: others would meet its processes and mounts."""
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for path in mounts_below(folder):
        detach(path)


def clear(path: Path, pid: int) -> None:
    """Unmount and see the daemon end.

    Raises:
        AssertionError: The mount or its daemon had to be removed by force.
    """
    if is_mounted(path):
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            bundlefs("umount", path)
    stuck = is_mounted(path)
    detach(path)
    lingering = not ended(pid, END_SECONDS)
    threads = waiting(pid) if lingering else ""
    if lingering:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not stuck, f"`bundlefs umount {path}` left it mounted; it was detached"
    assert not lingering, f"the daemon, pid {pid}, outlived its mount by {END_SECONDS} s{threads}"


@contextlib.contextmanager
def mounted(
    image: Path, mountpoint: Path, *options: str | Path, env: dict[str, str] | None = None
) -> Iterator[Mount]:
    """Mount `image` for the length of a `with`; account 123456789012 unless told otherwise.

    Args:
        image: A file or block device.
        mountpoint: An empty folder; made when it is not there.
        options: Of `bundlefs mount`.
        env: Environment variables on top of the machine's.
    """
    require_fuse()
    mountpoint.mkdir(parents=True, exist_ok=True)
    log = mountpoint.parent / f"{mountpoint.name}.log"
    logged = () if "--log-file" in options else ("--log-file", log)
    try:
        bundlefs("mount", *logged, *options, image, mountpoint, env=env)
        mount = Mount(image, mountpoint, int(read_status(mountpoint)["pid"]))
    except BaseException:
        detach(mountpoint)
        raise
    try:
        yield mount
    except BaseException as error:
        if log.exists():
            error.add_note(f"{log}:\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        clear(mountpoint, mount.pid)
