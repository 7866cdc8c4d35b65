"""The image source on real files, on a loop device, and on everything that is no image."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import errno
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from bundlefs.base.errors import ImageChangedError, ImageError
from bundlefs.base.spans import Span
from bundlefs.image.identity import Identity
from bundlefs.image.raw import Image

MIB = 1 << 20
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(Random(1).randbytes(300_001))
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A real block device of 1 MiB, and the file behind it."""
    backing = tmp_path / "backing"
    backing.write_bytes(Random(2).randbytes(MIB))
    found = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], check=True, capture_output=True, text=True
    )
    device = Path(found.stdout.strip())
    try:
        yield device, backing
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Give up root's rights over files for a while."""
    if os.geteuid():
        yield  # there are none
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# --- reading ---


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (0, 300_001), (1, 4096), (299_990, 11), (300_001, 0)]
)
def test_reads_exactly_what_is_asked_for(path: Path, offset: int, length: int) -> None:
    with Image.open(path) as image:
        assert image.read(offset, length) == path.read_bytes()[offset : offset + length]
        assert image.bytes_read == length


def test_attributes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with Image.open("image") as image:
        assert image.path == path
        assert image.size == 300_001
        status = path.stat()
        assert image.identity == Identity(
            size=300_001,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            device=status.st_dev,
            is_block_device=False,
        )


def test_many_threads_read_at_once(path: Path) -> None:
    content = path.read_bytes()
    random = Random(3)
    wanted = [(random.randrange(290_000), random.randrange(1, 10_000)) for _ in range(2000)]
    with Image.open(path) as image, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda request: image.read(*request), wanted))
        assert image.bytes_read == sum(length for _, length in wanted)
    assert found == [content[offset : offset + length] for offset, length in wanted]


def test_reading_moves_no_seek_pointer_and_leaks_into_no_child(path: Path) -> None:
    with Image.open(path) as image:
        descriptor = image._descriptor  # noqa: SLF001 (the kernel's view of it is the point)
        image.read(5, 5)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        assert not os.get_inheritable(descriptor)


def test_closing_twice_is_harmless_and_reading_then_fails(path: Path) -> None:
    image = Image.open(path)
    image.close()
    image.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        image.read(0, 1)


# --- what is no image ---


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        Image.open(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_no_such_image(tmp_path: Path) -> None:
    assert "check the path" in refusal(tmp_path / "nothing")


def test_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    assert "no image" in refusal(tmp_path / "link")


def test_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    assert "Too many levels of symbolic links" in refusal(tmp_path / "link")


def test_path_through_a_file(path: Path) -> None:
    assert "Not a directory" in refusal(path / "image")


def test_directory(tmp_path: Path) -> None:
    assert "is a directory: give a regular file or a block device" in refusal(tmp_path)


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "is a FIFO" in refusal(tmp_path / "fifo")


def test_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "is a socket" in refusal(tmp_path / "socket")


def test_character_device() -> None:
    assert "is a character device" in refusal(Path("/dev/zero"))


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "image")


def test_no_permission() -> None:
    # Not in tmp_path: its parents are closed to all others, and the file itself is the point.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "image")
        path.write_bytes(b"hello")
        path.chmod(0)
        with without_privileges():
            assert "no permission to read image" in refusal(path)


# --- changes while open ---


def changed(image: Image, offset: int = 0, length: int = 1) -> str:
    with pytest.raises(ImageChangedError) as caught:
        image.read(offset, length)
    assert image.bytes_read == 0
    assert str(image.path) in str(caught.value)
    return str(caught.value)


def test_shrinking(path: Path) -> None:
    with Image.open(path) as image:
        os.truncate(path, 3)
        assert "size was 300001 bytes, is 3" in changed(image)


def test_shrinking_says_where_bytes_are_missing(path: Path) -> None:
    with Image.open(path) as image:
        os.truncate(path, 1000)
        assert "24 bytes are missing at offset 1000, size was" in changed(image, 512, 512)
        assert "512 bytes are missing at offset 4096, size was" in changed(image, 4096, 512)


def test_growing(path: Path) -> None:
    with Image.open(path) as image:
        os.truncate(path, 300_002)
        assert "size was 300001 bytes, is 300002" in changed(image)


def test_editing_in_place(path: Path) -> None:
    with Image.open(path) as image:
        with path.open("r+b") as file:
            file.write(b"x")
        message = changed(image)
        assert re.search(r"mtime moved by \+\d+\.\d{9} s, ctime moved by \+\d+\.\d{9} s", message)
        assert "mount it again" in message


def test_times_that_jump_and_nothing_else_may_be_the_storages(path: Path) -> None:
    """A mount made anew there fails again, so the advice names what helps."""
    with Image.open(path) as image:
        os.utime(path, ns=(1, 1))
        assert "does not keep times steady (GlusterFS" in changed(image)
        assert "copy it to a local disk" in changed(image)
        os.truncate(path, 300_002)
        assert "GlusterFS" not in changed(image), "its bytes changed, and that is all there is"


def test_editing_and_setting_the_time_back(path: Path) -> None:
    with Image.open(path) as image:
        with path.open("r+b") as file:
            file.write(b"x")
        os.utime(path, ns=(image.identity.mtime_ns, image.identity.mtime_ns))
        message = changed(image)
        assert "mtime" not in message
        assert "ctime moved" in message


def test_touching(path: Path) -> None:
    with Image.open(path) as image:
        os.utime(path, ns=(0, 0))
        assert "mtime moved by -" in changed(image)


def test_a_change_is_found_by_extents_too(path: Path) -> None:
    with Image.open(path) as image:
        os.truncate(path, 3)
        with pytest.raises(ImageChangedError, match="size was 300001 bytes, is 3"):
            image.extents()


def test_replacing_the_file_by_another_changes_nothing(path: Path) -> None:
    """The open file stays what it was, and only its count of links, so its ctime, tells."""
    content = path.read_bytes()
    with Image.open(path) as image:
        keeper = path.with_name("keeper")
        assert image.read(0, 10) == content[:10]
        keeper.write_bytes(b"other")
        keeper.replace(path)
        with pytest.raises(ImageChangedError, match="ctime moved"):
            image.read(0, 10)


def test_reading_past_the_end_is_not_a_short_read(path: Path) -> None:
    with Image.open(path) as image:
        assert "1 bytes are missing at offset 300001" in changed(image, 300_000, 2)


# --- block devices ---


def forget_cached(device: Path) -> None:
    with device.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_block_device(loop: tuple[Path, Path]) -> None:
    device, backing = loop
    with Image.open(device) as image:
        assert image.size == MIB
        assert image.identity.is_block_device
        assert image.extents() == (Span(0, MIB),)
        assert image.read(5, MIB - 5) == backing.read_bytes()[5:]


def test_block_device_that_changes_its_size(loop: tuple[Path, Path]) -> None:
    device, backing = loop
    with Image.open(device) as image:
        os.truncate(backing, MIB // 2)
        subprocess.run(["losetup", "--set-capacity", str(device)], check=True)
        assert f"size was {MIB} bytes, is {MIB // 2}" in changed(image)


def test_touching_the_node_of_a_block_device_changes_nothing(loop: tuple[Path, Path]) -> None:
    device, backing = loop
    with Image.open(device) as image:
        os.utime(device, ns=(0, 0))
        assert image.read(0, 5) == backing.read_bytes()[:5]


def test_a_failing_device_speaks_for_itself(loop: tuple[Path, Path]) -> None:
    device, backing = loop
    with Image.open(device) as image:
        os.truncate(backing, 0)
        forget_cached(device)  # udev may have read it
        with pytest.raises(OSError, match="Input/output error") as caught:
            image.read(MIB // 2, 4096)
        assert caught.value.errno == errno.EIO
