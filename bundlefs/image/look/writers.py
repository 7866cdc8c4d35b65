"""Who has an image open for writing, as far as the system tells.

A read lease is refused on a file that anybody has open for writing, which costs one
system call [fcntl(2), F_SETLEASE]. Network file systems refuse it for reasons of their
own, so there a writer counts only if it is found. Nothing is asked of files but the
names of links in /proc: to look at what others have open could wait for a dead server.
"""

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LOOPS = Path("/sys/block")
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs", "overlay")
_WRITES = os.O_WRONLY | os.O_RDWR


def writer(path: Path) -> str | None:
    """Return who has a file or device open for writing, in words, or None if nobody is known to."""
    try:
        if path.is_block_device():
            return _mount_of(path)
        if not path.is_file() or not _is_open_for_writing(path):
            return None
        real = os.path.realpath(path)
        found = next(_processes(real), None) or next(_loops(real), None)
        return found or ("a process that cannot be seen" if _is_local(path) else None)
    except OSError:
        return None


def _is_open_for_writing(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # Who opens it in this very moment sends a signal, which must not end us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Others mean that it cannot be told: it is somebody else's file, or of a kind without.
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def _processes(real: str) -> Iterator[str]:
    for process in _PROC.glob("[0-9]*"):
        # It may end meanwhile, or be somebody else's.
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                if str(link.readlink()) == real and _writes(process / "fdinfo" / link.name):
                    name = (process / "comm").read_bytes().strip().decode("utf-8", "replace")
                    yield f"process {process.name} ({name})"


def _writes(about: Path) -> bool:
    for line in about.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("flags:"):
            return bool(int(line.split()[1], 8) & _WRITES)
    return False


def _loops(real: str) -> Iterator[str]:
    for loop in _LOOPS.glob("loop*"):
        with suppress(OSError):
            backing = (loop / "loop/backing_file").read_bytes().rstrip(b"\n")
            if os.fsdecode(backing) == real and (loop / "ro").read_text().strip() == "0":
                yield f"the loop device /dev/{loop.name}"


def _mount_of(path: Path) -> str | None:
    """Return where a device, or a partition of it, is mounted and may be written to."""
    whole = Path(f"/sys/dev/block/{_number(path.stat().st_rdev)}")
    devices = {one.read_text().strip() for one in (whole / "dev", *whole.glob("*/dev"))}
    for device, where, _, options in _mounts():
        if device in devices and "rw" in options.split(","):
            return f"the file system that is mounted on {where}"
    return None


def _is_local(path: Path) -> bool:
    number = _number(path.stat().st_dev)
    return any(device == number and kind in _LOCAL for device, _, kind, _ in _mounts())


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Yield device, mountpoint, kind and the file system's own options [proc(5), mountinfo]."""
    for line in (_PROC / "self/mountinfo").read_bytes().splitlines():
        mount, _, system = line.decode("utf-8", "replace").partition(" - ")
        _, _, device, _, where, *_ = mount.split(" ")
        kind, _, options = system.split(" ")
        yield device, where, kind, options
