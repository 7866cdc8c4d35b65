"""Other people's tools that look at a disk: blkid and sfdisk, where they are installed.

They get an open file, by its number, and never a name from the user or the image. Of an image
that is not raw they get a file in memory with what they need of it: both ends of the disk and of
what they are asked about. Each has a limit of time, and what it prints is read as data.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from bundlefs.base.files import write_all
from bundlefs.image.look.partitions import Partition
from bundlefs.image.look.superblocks import System

_HEAD, _TAIL = 2 << 20, 1 << 20
_PAGE = 64 << 10
_SECONDS = 5.0
_ALL_SECONDS = 15.0
_MOST_OUTPUT = 1 << 20
_MOST_COPIED = 256 << 20
_NOTHING, _SEVERAL = 2, 8
"""Exit codes of blkid: it found nothing; it found signs of several and can name none."""

_SECTOR = 512
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


class ToolError(Exception):
    """A tool is not there, or gave no answer; the text says which and why."""


class Tools:
    """The tools for one disk. A context manager that closes its file.

    Args:
        size: of the disk.
        read: reads so many bytes of it at an offset, fewer behind what is known.
        descriptor: the disk itself, where it is a raw image; the caller's.
    """

    def __init__(
        self, size: int, read: Callable[[int, int], bytes], descriptor: int | None
    ) -> None:
        self._size = size
        self._read = read
        self._descriptor = descriptor
        self._own = -1
        self._copied = 0
        self._ends = time.monotonic() + _ALL_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own >= 0:
            os.close(self._own)

    def system(self, start: int, size: int) -> tuple[System | None, str | None]:
        """Return what blkid finds in a part of the disk: a system, and the name of a table.

        Raises:
            ToolError: there is no answer.
            OSError: the image cannot be read.
        """
        self._bring(start, size)
        words = ["-p", "-o", "udev"]
        if start or size != self._size:
            words += ["-O", str(start), "-S", str(size)]
        code, output = self._run("blkid", words)
        if code == _SEVERAL:
            return System("several"), None
        if code not in (0, _NOTHING):
            raise ToolError(f"blkid ended with {code}")
        told = dict(line.partition(b"=")[::2] for line in output.splitlines())
        kind = _text(told, b"ID_FS_TYPE")
        system = kind and System(
            kind,
            _text(told, b"ID_FS_LABEL_ENC"),
            _text(told, b"ID_FS_UUID_ENC") or _text(told, b"ID_FS_UUID"),
        )
        return system or None, _text(told, b"ID_PART_TABLE_TYPE")

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions of a table that sfdisk reads.

        Raises:
            ToolError: there is no answer.
            OSError: the image cannot be read.
        """
        self._bring(0, self._size)
        code, output = self._run("sfdisk", ["--json"])
        if code:
            raise ToolError(f"sfdisk ended with {code}")
        try:
            found = json.loads(output)["partitiontable"].get("partitions", [])
            return tuple(_partition(number, one) for number, one in enumerate(found[:256], 1))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ToolError("sfdisk printed what is not read") from error

    def _bring(self, start: int, size: int) -> None:
        """Copy both ends of a part of the disk to where the tools look, but for zeros."""
        own = self._file()
        if self._own < 0:
            return
        stop = min(start + size, self._size)
        for begin, end in ((start, start + _HEAD), (max(start, stop - _TAIL), stop)):
            for at in range(begin, min(end, stop), _PAGE):
                data = self._read(at, min(_PAGE, stop - at))
                if not data:
                    break
                if any(data):
                    self._copied += len(data)
                    if self._copied > _MOST_COPIED:
                        raise ToolError("too many partitions were looked at")
                    write_all(own, memoryview(data), at)

    def _file(self) -> int:
        """Return what the tools read: the disk itself, or the file in memory, made by now."""
        if self._descriptor is None:
            try:
                self._own = os.memfd_create("disk", os.MFD_CLOEXEC)
                os.ftruncate(self._own, self._size)
            except OSError as error:
                raise ToolError(f"no file of {self._size} bytes: {error.strerror}") from error
            self._descriptor = self._own
        return self._descriptor

    def _run(self, tool: str, words: list[str]) -> tuple[int, bytes]:
        path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
        if path is None:
            raise ToolError(f"{tool} is not installed")
        left = min(_SECONDS, self._ends - time.monotonic())
        if left <= 0:
            raise ToolError(f"there was no time left for {tool}")
        descriptor = self._file()
        process = subprocess.Popen(  # noqa: S603  # no shell, and no text of the user's or the image's
            [path, *words, f"/proc/self/fd/{descriptor}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
            # So that whatever it starts ends with it.
            start_new_session=True,
        )
        with process:
            try:
                return _ended(process, time.monotonic() + left)
            except TimeoutError as error:
                raise ToolError(f"{tool} gave no answer within {left:.0f} s") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, bytes]:
    """Return exit code and output of a process.

    Raises:
        TimeoutError: it did not end, or said more than anybody asked for.
    """
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    output = bytearray()
    while select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
        piece = os.read(process.stdout.fileno(), _PAGE)
        output += piece
        if not piece:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(max(deadline - time.monotonic(), 0)), bytes(output)
            break
        if len(output) > _MOST_OUTPUT:
            break
    raise TimeoutError


def _text(told: dict[bytes, bytes], name: bytes) -> str | None:
    r"""Return a value, whose bytes are written as `\x1b` where they are odd."""
    raw = _ESCAPE.sub(lambda code: bytes([int(code[1], 16)]), told.get(name, b""))
    return raw.decode("utf-8", "replace").rstrip() or None


def _partition(number: int, one: dict[str, Any]) -> Partition:
    with suppress(ValueError):
        number = int(re.sub(r".*?([0-9]+)$", r"\1", str(one["node"])))
    return Partition(
        int(one["start"]) * _SECTOR,
        int(one["size"]) * _SECTOR,
        None,
        number,
        str(one["type"]),
        str(one.get("name", "")),
        bootable=bool(one.get("bootable", False)),
    )
