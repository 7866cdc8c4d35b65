"""Virtual machines' disk formats, read by qemu's own tools.

`qemu-nbd` opens the very file that was opened here, by its descriptor, and serves the disk in it
to a few connections of this process. It ends with the last of them, and it is killed when its
parent ends, so that nothing outlasts a mount, however that ends. Nothing is mounted, and the name
of its socket is removed at once.

An image may come from anybody, and these formats can name other files to read from. An image that
names one is refused: the file's bytes would go into the bundle, and a change of them would not be
seen. A format that is new here gets a branch of its own in `_require_self_contained`. Where an
image is cut short qemu reads zeros, so its own check of the image comes first.
"""

import json
import shutil
import socket
import struct
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

_QCOW2 = struct.Struct(">4sIQ8xQI")
_QCOW2_HEADER = 72
_QCOW2_VERSIONS = (2, 3)
_QCOW2_FEATURES = struct.Struct(">Q")
_EXTERNAL_DATA = 1 << 2
_VDI = struct.Struct("<I28xI8xI")
_VDI_FIELDS = 0x158
_VMDK = struct.Struct("<4sIIQQQQ")
_SECTOR = 512
_MOST_TEXT = 1 << 20


def serve(file: Image, form: Form) -> "QemuImage":
    """Start a server for the disk in `file`.

    Raises:
        ImageError: the tools are missing, or the image is damaged, in use by a virtual machine,
            or not whole by itself.
    """
    try:
        _require_self_contained(file, form)
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    for tool in ("qemu-nbd", "qemu-img", "setpriv"):
        if shutil.which(tool) is None:
            raise FormError(
                f"image {file.path} is of the format {form.value}, and {tool}, which is needed to"
                " read it, is not installed: on Debian and Ubuntu, apt install"
                f" {'util-linux' if tool == 'setpriv' else 'qemu-utils'}"
            )
    return QemuImage(file, form)


def _require_self_contained(file: Image, form: Form) -> None:
    if form is Form.VMDK_TEXT:
        raise _not_alone(file, form, "only describes a disk that is in other files")
    if form is Form.QCOW2:
        _require_whole_qcow2(file)
    if form is Form.VMDK:
        _require_whole_vmdk(file)
    if form is Form.VDI:
        _require_whole_vdi(file)


def _require_whole_qcow2(file: Image) -> None:
    """Refuse backing files, external data files and encryption [docs/interop/qcow2.txt]."""
    if file.size < _QCOW2_HEADER:
        raise ImageError(
            f"image {file.path} (qcow2) is cut short: it has {file.size} bytes, and a header alone"
            f" has {_QCOW2_HEADER}; get it anew"
        )
    head = _head(file, 104)
    _, version, backing, _, encryption = _QCOW2.unpack_from(head)
    if version not in _QCOW2_VERSIONS:
        raise ImageError(
            f"image {file.path} says that it is qcow2 of version {version}, and there are 2 and 3:"
            " make one of these with the tool that wrote it, or get it anew if it is damaged"
        )
    features = _QCOW2_FEATURES.unpack_from(head, 72)[0] if version > 2 else 0  # noqa: PLR2004  # from 3 on
    if backing:
        raise _not_alone(file, Form.QCOW2, "has a backing file")
    if features & _EXTERNAL_DATA:
        raise _not_alone(file, Form.QCOW2, "has its data in another file")
    if encryption:
        raise ImageError(
            f"image {file.path} is encrypted: decrypt it first, with qemu-img convert -O raw"
        )


def _require_whole_vmdk(file: Image) -> None:
    """Refuse an image with a parent or without a disk [VMware's Virtual Disk Format 1.1]."""
    _, _, _, capacity, _, text_sector, text_sectors = _VMDK.unpack(_head(file, _VMDK.size))
    if not capacity:
        raise _not_alone(file, Form.VMDK, "only describes a disk that is in other files")
    offset = min(text_sector * _SECTOR, file.size)
    length = min(text_sectors * _SECTOR, _MOST_TEXT, file.size - offset)
    if b"parentfilenamehint" in file.read(offset, length).lower():
        raise _not_alone(file, Form.VMDK, "has a parent file")


def _require_whole_vdi(file: Image) -> None:
    """Refuse an image that is cut short, which qemu's check overlooks [qemu's block/vdi.c].

    The header says where the data begins, how large a block is, and how many are allocated.
    """
    data, block, allocated = _VDI.unpack_from(_head(file, _SECTOR), _VDI_FIELDS)
    if data + block * allocated > file.size:
        raise ImageError(
            f"image {file.path} (vdi) is cut short: it has {file.size} bytes, and its header says"
            f" {data + block * allocated}; get it anew"
        )


def _head(file: Image, length: int) -> bytes:
    """Return the first bytes, zeros where the file is shorter: qemu then says what is wrong."""
    return file.read(0, min(length, file.size)).ljust(length, b"\0")


def _not_alone(file: Image, form: Form, why: str) -> ImageError:
    return ImageError(
        f"image {file.path} ({form.value}) {why}, and bundlefs reads no file that an image names:"
        " if you trust it, make one image of it all with qemu-img convert -O raw"
    )


def _require_sound(file: Image, location: str) -> None:
    with tempfile.TemporaryFile() as messages:
        done = subprocess.run(  # noqa: S603  # no shell, and no text of the image's
            ["qemu-img", "check", "-q", location],  # noqa: S607  # as the user's path has it
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=[file.fileno()],
            check=False,
        )
        if done.returncode not in _SOUND:
            raise ImageError(
                f"image {file.path} is damaged, cut short or in use, as qemu-img check says:"
                f" {_first_line(messages)}"
            )


class QemuImage:
    """The disk in a file, read through `qemu-nbd`. Thread-safe."""

    def __init__(self, file: Image, form: Form) -> None:
        self._file = file
        self._form = form
        _require_sound(file, _location(file, form))
        with ExitStack() as stack:
            self._server = stack.enter_context(_Server(file, _location(file, form)))
            self._disk = Disk(self._server.connections)
            if not self._disk.size:
                raise ImageError(f"image {file.path}: the {form.value} disk is empty (0 bytes)")
            self._stack = stack.pop_all()
        self.size = self._disk.size

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`; raises OSError if qemu cannot."""
        return self._disk.read(offset, length)

    def extents(self) -> tuple[Span, ...]:
        """Return where there is data, as `qemu-img map` lists it; all, if the list is too long."""
        words = ["qemu-img", "map", "--output=json", _location(self._file, self._form)]
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


def _location(file: Image, form: Form) -> str:
    """Return the open file and its format as qemu is told: it must guess and follow nothing."""
    place: dict[str, Any] = {
        "driver": form.value,
        "read-only": True,
        "file": {
            "driver": "file",
            "filename": f"/proc/self/fd/{file.fileno()}",
        },
    }
    if form is not Form.VDI:  # VDI cannot have a backing file
        place["backing"] = None
    return f"json:{json.dumps(place)}"


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
