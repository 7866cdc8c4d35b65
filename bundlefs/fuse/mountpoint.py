"""Mountpoints seen from outside: whether one can be mounted on, its status, its end.

No event loop and no FUSE library here, so that `bundlefs status` and `umount` start at once.
"""

import json
import logging
import os
import re
import select
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bundlefs.base.errors import MountError
from bundlefs.base.escapes import quoted

log = logging.getLogger(__name__)

FS_TYPE = "fuse.bundlefs"
CONTROL_NAME = ".bundlefs"
STATUS_NAME = "status.json"
METRICS_NAME = "metrics"
_AUTOMOUNT = "autofs"
_END_SECONDS = 30


def check_mountpoint(path: Path) -> Path:
    """Return the absolute path of a folder that can be mounted on.

    Raises:
        MountError: it cannot be, or FUSE is not there.
    """
    where = Path(os.path.realpath(path))
    # A look into an automount point waits for what is to be mounted there, which is us.
    if find_mount(where) != _AUTOMOUNT:
        _require_empty(path, where)
    check_fuse()
    return where


def _require_empty(path: Path, where: Path) -> None:
    try:
        names = os.listdir(where)  # noqa: PTH208  # its OSErrors carry the text we show
    except OSError as error:
        remedy = _remedy(path, error)
        raise MountError(f"mountpoint {path}: {error.strerror}; {remedy}") from error
    if os.path.ismount(where):
        raise MountError(f"mountpoint {path} is already a mount; choose another or unmount it")
    if names:
        raise MountError(
            f"mountpoint {path} is not empty ({quoted(names[0])} is in it); choose another"
        )


def _remedy(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "make it with mkdir"
    if find_mount(path.absolute()):
        return f"a dead mount? try: bundlefs umount {shlex.quote(str(path))}"
    return "choose an empty folder that you may read and write"


def check_fuse() -> None:
    """See that FUSE is there.

    Raises:
        MountError: it is not, or may not be used.
    """
    device = Path("/dev/fuse")
    if not device.exists():
        raise MountError(
            f"FUSE is not there ({device} is missing): try `modprobe fuse`;"
            f" in a container give it --device {device} --cap-add SYS_ADMIN"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise MountError(
            f"no permission to use FUSE: {device} is not open to you; run as root, or have root"
            f" do `chmod 666 {device}`"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is not there: install the package fuse3")


class TableEntry(NamedTuple):
    """A line of the kernel's table of mounts [proc(5)]."""

    number: int
    root: str
    """What of the file system is mounted."""
    point: str
    kind: str
    source: str
    options: frozenset[str]
    """Those of the file system."""


def mounts() -> Iterator[tuple[str, str]]:
    """Yield path and file-system type of each mount, in the order of mounting."""
    yield from ((entry.point, entry.kind) for entry in table())


def sources() -> Iterator[tuple[str, str]]:
    """Yield path and source of each mount of bundlefs, dead or alive."""
    yield from ((entry.point, entry.source) for entry in table() if entry.kind == FS_TYPE)


def table() -> Iterator[TableEntry]:
    """Yield all mounts that this process can see, in the order of mounting."""
    # Not splitlines(): a carriage return may be part of a name.
    for line in filter(None, Path("/proc/self/mountinfo").read_bytes().split(b"\n")):
        fields = line.split(b" ")
        kind, source, options = fields[fields.index(b"-") + 1 :][:3]
        yield TableEntry(
            number=int(fields[0]),
            root=unescaped(fields[3]),
            point=unescaped(fields[4]),
            kind=unescaped(kind),
            source=unescaped(source),
            options=frozenset(unescaped(options).split(",")),
        )


def unescaped(field: bytes) -> str:
    """Undo the table's escapes, which are of bytes and not of characters."""
    plain = re.sub(rb"\\([0-3][0-7]{2})", lambda code: bytes([int(code[1], 8)]), field)
    return os.fsdecode(plain)


def find_mount(path: Path) -> str | None:
    """Return the file-system type of what is mounted at exactly this absolute path, or None."""
    # What was mounted last hides the others.
    return dict(mounts()).get(os.fspath(path))


def read_status(path: Path) -> dict[str, Any]:
    """Return what a mount says of itself.

    Raises:
        MountError: there is no bundlefs mount, or its process is gone.
    """
    try:
        text = (path / CONTROL_NAME / STATUS_NAME).read_text(encoding="utf-8")
    except OSError as error:
        hint = f"`findmnt -t {FS_TYPE}` lists the mounts"
        if find_mount(path.absolute()) == FS_TYPE:
            hint = f"its process is gone; run: bundlefs umount {shlex.quote(str(path))}"
        raise MountError(f"no bundlefs answers at {path} ({error.strerror}); {hint}") from error
    status: dict[str, Any] = json.loads(text)
    return status


def unmount(path: Path, *, lazy: bool) -> None:
    """Unmount a bundlefs mount and wait until its process has ended.

    Raises:
        MountError: there is none, or it is busy.
    """
    where = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() fails on a dead mount
    with suppress(OSError):
        where = where.resolve()
    if find_mount(where) != FS_TYPE:
        raise MountError(f"{path} is not a bundlefs mount; `findmnt -t {FS_TYPE}` lists them")
    process = _process_of(where)
    command = [*_unmounter(lazy=lazy), str(where)]
    done = _said(command)
    if done.returncode:
        raise MountError(
            f"cannot unmount {path}: {done.stderr.strip()}; `fuser -vm {path}` shows who uses it,"
            " --lazy detaches it all the same"
        )
    if process is not None:
        _await_end(process, lazy=lazy)


def unmount_if_idle(where: Path) -> str | None:
    """Unmount if nobody uses the mount; return what the system says where that fails."""
    try:
        command = [*_unmounter(lazy=False), str(where)]
        done = _said(command)
    except (MountError, OSError) as error:
        return str(error)
    # It may have been unmounted a moment ago by somebody else.
    return done.stderr.strip() if done.returncode and find_mount(where) == FS_TYPE else None


def _said(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says; it may repeat a name that is not UTF-8."""
    return subprocess.run(  # noqa: S603  # argv, no shell
        command,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


def _unmounter(*, lazy: bool) -> list[str]:
    """Return the command that unmounts: only root can do without fusermount3."""
    if found := shutil.which("fusermount3"):
        return [found, "-u", *(["-z"] if lazy else [])]
    if os.geteuid() == 0 and (found := shutil.which("umount")):
        return [found, *(["-l"] if lazy else [])]
    raise MountError("fusermount3 is not there: install the package fuse3")


def _process_of(where: Path) -> int | None:
    """Return a pidfd of the mount's process, or None if it is gone."""
    try:
        return os.pidfd_open(int(read_status(where)["pid"]))
    except (OSError, MountError):
        return None


def _await_end(process: int, *, lazy: bool) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(0 if lazy else _END_SECONDS * 1000) and not lazy:
        log.warning("unmounted; its process has not ended within %d s", _END_SECONDS)
    os.close(process)
