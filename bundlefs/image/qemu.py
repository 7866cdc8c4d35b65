"""Virtual machines' disk formats, read by qemu's own tools.

`qemu-nbd` opens the very file that was opened here, by its descriptor, and serves the disk in it
to a few connections of this process. It ends with the last of them, and it is killed when its
parent ends, so that nothing outlasts a mount, however that ends. Nothing is mounted, and the name
of its socket is removed at once.

An image may come from anybody: `contained` has refused what names other files, and tells qemu
where the disk is. Where an image is cut short qemu reads zeros, so its own check of the image comes
first.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from bundlefs.base.errors import FormError, ImageError
from bundlefs.base.spans import Span
from bundlefs.base.threads import lasting
from bundlefs.image import contained
from bundlefs.image.contained import Place
from bundlefs.image.forms import Form
from bundlefs.image.nbd import Connection, Disk
from bundlefs.image.raw import Image

_CONNECTIONS = 4
_START_SECONDS = 20
_END_SECONDS = 5
_MAP_SIZE = 32 << 20
"""Bytes of the list of extents; only a disk that was made to have a longer one has it."""

_LONGEST_MESSAGE = 64 << 10
_SOUND = (0, 3)
"""Exit codes of `qemu-img check`: all is well, or some space is not used [qemu-img(1)]."""


def serve(file: Image, form: Form) -> "QemuImage":
    """Start a server for the disk in `file`.

    Raises:
        ImageError: the tools are missing, or the image is damaged, in use by a virtual machine,
            or not whole by itself.
    """
    try:
        place = contained.place(file, form)
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    for tool in ("qemu-nbd", "qemu-img", "setpriv"):
        if shutil.which(tool) is None:
            raise FormError(
                f"image {file.path} is of the format {form.value}, and {tool}, which is needed to"
                " read it, is not installed: on Debian and Ubuntu, apt install"
                f" {'util-linux' if tool == 'setpriv' else 'qemu-utils'}"
            )
    return QemuImage(file, form, place)


def _require_sound(file: Image, location: str, command: list[str]) -> None:
    with tempfile.TemporaryFile() as messages:
        done = subprocess.run(  # noqa: S603  # no shell, and no text of the image's
            ["qemu-img", *command, location],  # noqa: S607  # as the user's path has it
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=[file.fileno()],
            check=False,
        )
        if done.returncode not in _SOUND:
            raise ImageError(
                f"image {file.path} is damaged, cut short or in use, as qemu-img {command[0]} says:"
                f" {_first_line(messages)}"
            )


class QemuImage:
    """The disk in a file, read through `qemu-nbd`. Thread-safe."""

    def __init__(self, file: Image, form: Form, place: Place) -> None:
        self._file = file
        self._location = _location(file, place)
        # What has no check of its own is looked at on opening.
        _require_sound(file, self._location, ["check", "-q"] if place.checked else ["info"])
        with ExitStack() as stack:
            self._server = stack.enter_context(_Server(file, self._location))
            self._disk = Disk(self._server.connections)
            if not self._disk.size:
                raise ImageError(f"image {file.path}: the {form.value} disk is empty (0 bytes)")
            if place.size not in (None, self._disk.size):
                raise ImageError(
                    f"image {file.path} ({form.value}) has {place.size} bytes inside, and qemu-nbd"
                    f" makes {self._disk.size} of it: install another version of qemu-utils"
                )
            self._stack = stack.pop_all()
        self.size = self._disk.size

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`; raises OSError if qemu cannot."""
        return self._disk.read(offset, length)

    def extents(self) -> tuple[Span, ...]:
        """Return where there is data, as `qemu-img map` lists it; all, if the list is too long."""
        words = ["qemu-img", "map", "--output=json", self._location]
        with subprocess.Popen(  # noqa: S603  # no shell, and no text of the image's
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._file.fileno()],
        ) as process:
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            data = process.stdout.read(_MAP_SIZE)
            if len(data) == _MAP_SIZE:
                process.kill()
        if process.returncode:
            return (Span(0, self.size),)
        return _data_spans(json.loads(data), self.size)

    def close(self) -> None:
        """End the server. Closing it again does nothing."""
        self._stack.close()


def _data_spans(entries: list[dict[str, Any]], size: int) -> tuple[Span, ...]:
    """Join what `qemu-img map` lists one by one."""
    found: list[Span] = []
    for entry in entries:
        if entry["zero"]:
            continue
        start, stop = entry["start"], min(entry["start"] + entry["length"], size)
        if found and found[-1].stop == start:
            start = found.pop().start
        found.append(Span(start, stop))
    return tuple(found)


def _location(file: Image, place: Place) -> str:
    """Return the open file and its format as qemu is told: it must guess and follow nothing."""
    node: dict[str, Any] = {
        "driver": "host_device" if file.identity.is_block_device else "file",
        "filename": f"/proc/self/fd/{file.fileno()}",
    }
    if within := place.within:
        node = {"driver": "raw", "offset": within.start, "size": within.length, "file": node}
    disk = {"driver": place.driver, "read-only": True, "file": node, **place.options}
    return f"json:{json.dumps(disk)}"


class _Server:
    """A `qemu-nbd` process and the connections to it. A context manager that ends both."""

    def __init__(self, file: Image, location: str) -> None:
        self._file = file
        self._location = location
        self.connections: list[Connection] = []

    def __enter__(self) -> Self:
        with (
            tempfile.TemporaryDirectory(prefix="bundlefs-") as folder,
            tempfile.TemporaryFile() as messages,
        ):
            path = Path(folder) / "nbd"
            # The thread that opens an image of a folder ends when it is open.
            self._process = lasting(partial(self._started, path, messages))
            try:
                self._connect(path, messages)
            except BaseException:
                self._end(0)
                raise
        return self

    def _started(self, path: Path, messages: IO[bytes]) -> subprocess.Popen[bytes]:
        words = ["qemu-nbd", "--read-only", f"--shared={_CONNECTIONS}", f"--socket={path}"]
        return subprocess.Popen(  # noqa: S603  # no shell, and no text of the image's
            ["setpriv", "--pdeathsig", "KILL", "--", *words, self._location],  # noqa: S607  # as the user's path has them
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            pass_fds=[self._file.fileno()],
            # Ctrl-C is meant for the mount, which reads on until it is unmounted.
            start_new_session=True,
        )

    def _connect(self, path: Path, messages: IO[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while len(self.connections) < _CONNECTIONS:
            try:
                self.connections.append(_connection(path))
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ImageError(
                        f"qemu-nbd cannot read image {self._file.path}:"
                        f" {_first_line(messages)} ({error})"
                    ) from error
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._end(_END_SECONDS)

    def _end(self, patience: float) -> None:
        for connection in self.connections:
            connection.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _connection(path: Path) -> Connection:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(str(path))
        return Connection(end)
    except BaseException:
        end.close()
        raise


def _first_line(messages: IO[bytes]) -> str:
    messages.seek(0)
    lines = messages.read(_LONGEST_MESSAGE).decode("utf-8", "replace").strip().splitlines()
    # The line repeats what qemu was told to open, which means nothing to the user.
    return lines[0].rpartition("}': ")[2] if lines else "nothing"
