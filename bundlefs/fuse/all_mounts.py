"""All mounts of bundlefs that this process can see, each asked where it stands.

None can hold up the others, or whoever asks: not one whose process is stopped or gone, nor one of
another user. What answers is not trusted: anybody may mount something and call it `bundlefs`, so
no link is followed, no more is read than a status may have, and it has the types of one.

Concurrency: each mount is asked by a thread of its own, which nobody waits for longer than
`ANSWER_SECONDS`.
"""

import errno
import json
import os
import shlex
import sys
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bundlefs.base.threads import Threads, asking_storage
from bundlefs.fuse.mountpoint import CONTROL_NAME, FS_TYPE, STATUS_NAME, TableEntry, table

ANSWER_SECONDS = 5.0
_MOST_BYTES = 64 << 20
"""A folder of 100,000 images has less to say."""
_GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_MOST = 1 << 63
_NUMBERS = (
    *("image_size", "storage_silent_seconds", "tar_bytes_done", "tar_size"),
    *("pass_bytes_done", "pass_bytes_total", "pass_seconds"),
)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount, and what it answered.

    Attributes:
        mountpoint: where it is.
        source: what is mounted, as the kernel's table has it.
        answer: `status` if it gave one; else `dead`, `silent`, `forbidden`, `hidden`, `inside`
            (a file or folder of a mount, mounted once more) or `strange`.
        status: what it says of itself, if it does.
        error: why it gives no status.
    """

    mountpoint: str
    source: str
    answer: str
    status: dict[str, Any] | None
    error: str | None

    @property
    def at_fault(self) -> bool:
        """Whether it has failed, or should answer and does not."""
        return self.answer in ("dead", "silent", "strange") or (
            self.status is not None and self.status["phase"] == "failed"
        )


def all_mounts() -> list[Mounted]:
    """Ask all mounts at a time; return them in the order of mounting."""
    entries = [entry for entry in table() if entry.kind == FS_TYPE]
    threads = Threads(sys.maxsize, "ask")
    asked = [threads.submit(partial(_ask, entry)) for entry in entries]
    wait(asked, timeout=ANSWER_SECONDS)
    threads.shut()
    return [_outcome(entry, future) for entry, future in zip(entries, asked, strict=True)]


def _outcome(entry: TableEntry, asked: "Future[dict[str, Any] | None]") -> Mounted:
    try:
        status = asked.result(timeout=0)
    except TimeoutError:
        return _without(entry, "silent", f"it has not answered within {ANSWER_SECONDS:.0f} s")
    except OSError as error:
        return _refused(entry, error)
    except ValueError:
        return _without(entry, "strange", "what it answers is no status of bundlefs")
    if status is None:
        return _without(entry, "hidden", "another mount lies over it")
    return Mounted(entry.point, entry.source, "status", status, None)


def _refused(entry: TableEntry, error: OSError) -> Mounted:
    if error.errno in _GONE:
        remedy = f"bundlefs umount {shlex.quote(entry.point)}"
        return _without(entry, "dead", f"its process is gone; run: {remedy}")
    if error.errno in _FORBIDDEN:
        return _without(entry, "forbidden", f"only {_owner(entry)} may look into it")
    if error.errno in _ABSENT and entry.root != "/":
        return _without(entry, "inside", f"it is {entry.root} of a mount")
    return _without(entry, "strange", f"it gives no status: {error.strerror}")


def _without(entry: TableEntry, answer: str, why: str) -> Mounted:
    return Mounted(entry.point, entry.source, answer, None, why)


def _owner(entry: TableEntry) -> str:
    """Return who mounted it, in words: FUSE lets nobody else in unless it was told to."""
    users = [each.partition("=")[2] for each in entry.options if each.startswith("user_id=")]
    return f"user {users[0]}" if users else "its owner"


def _ask(entry: TableEntry) -> dict[str, Any] | None:
    """Return the status of one mount, or None if its path leads to another mount.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    with asking_storage():
        root = os.open(entry.point, os.O_PATH | os.O_CLOEXEC)
        try:
            return _status_below(root) if mount_number(root) == entry.number else None
        finally:
            os.close(root)


def mount_number(descriptor: int) -> int:
    """Return which line of the kernel's table a descriptor belongs to [proc(5)]."""
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
    fields = dict(line.split(b":", 1) for line in about.splitlines() if b":" in line)
    return int(fields[b"mnt_id"])


def _status_below(root: int) -> dict[str, Any]:
    plain = os.O_CLOEXEC | os.O_NOFOLLOW
    folder = os.open(CONTROL_NAME, plain | os.O_PATH | os.O_DIRECTORY, dir_fd=root)
    try:
        # Whatever it is: opening a FIFO must not wait for a writer.
        file = os.open(STATUS_NAME, plain | os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with open(file, "rb") as text:  # noqa: PTH123  # a descriptor
        return _decoded(text.read(_MOST_BYTES))


def _decoded(text: bytes) -> dict[str, Any]:
    """Return a status whose fields have the types that they should.

    Raises:
        ValueError: it is none.
    """
    try:
        status = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    images = status.get("images", []) if isinstance(status, dict) else [None]
    if not isinstance(images, list) or not all(map(_plausible, [status, *images])):
        raise ValueError("no status")
    whole: dict[str, Any] = status
    return whole


def _plausible(one: Any) -> bool:  # noqa: ANN401  # whatever somebody wrote
    return (
        isinstance(one, dict)
        and isinstance(one.get("phase"), str)
        and isinstance(one.get("error"), str | None)
        and all(_is_number(one.get(name, 0)) for name in _NUMBERS)
    )


def _is_number(value: Any) -> bool:  # noqa: ANN401  # same
    return isinstance(value, int | float) and 0 <= value < _MOST
