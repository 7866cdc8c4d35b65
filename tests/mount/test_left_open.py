"""What a caller has left open: a mount in the background, and its helpers, hold none of it."""

import fcntl
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.commands import MARK, eventually
from tests.support import images
from tests.support.mounts import BUNDLEFS, clear, detach, is_mounted, read_status, settings
from tests.support.tools import run

OTHER = "210987654321"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 11 * images.MIB)


@contextmanager
def mounted_by(
    image: str | Path, mountpoint: Path, *options: str | Path, left: tuple[int, ...]
) -> Iterator[str]:
    """Mount as `x=$(bundlefs mount ... 2>&1)` does, with `left` open besides; gives x."""
    # It comes to an end only when nobody holds the pipe any more.
    done = subprocess.run(
        [*BUNDLEFS, "mount", *map(str, options), str(image), str(mountpoint)],
        env=settings({MARK: mountpoint.name}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=left,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    pid = int(read_status(mountpoint)["pid"])
    try:
        yield done.stdout
    finally:
        clear(mountpoint, pid)


def holders(inode: int) -> list[str]:
    """Return the command lines of the other processes that hold a file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            numbers = [path for path in (process / "fd").iterdir() if path.stat().st_ino == inode]
            if numbers and process.name != str(os.getpid()):
                found.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", ["raw", "qcow2", "auto_unmount", "eager"])
def test_nobody_holds_a_pipe_or_a_lock(
    kind: str, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    options = {"auto_unmount": ("-o", "auto_unmount"), "eager": ("--eager",)}.get(kind, ())
    if kind == "qcow2":
        disk = tmp_path / "disk.qcow2"
        run(["qemu-img", "convert", "-O", "qcow2", image, disk])
        image = disk
    reader, writer = os.pipe()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with mounted_by(image, mountpoint, *options, left=(writer, lock.fileno())):
            pipe, file = os.fstat(writer).st_ino, os.fstat(lock.fileno()).st_ino
            assert (holders(pipe), holders(file)) == ([], [])
            os.close(writer)
            assert select.select([reader], [], [], 0)[0]
            assert os.read(reader, 1) == b""
            os.close(reader)
            assert len(list(mountpoint.glob("*.part.*"))) == 2


def test_a_warning_starts_no_process(image: Path, mountpoint: Path) -> None:
    with mounted_by(image, mountpoint, left=()) as said:
        assert said == ""
    with mounted_by(image, mountpoint, "--account", OTHER, left=()) as said:
        assert "WARNING" in said


LOCK = """
import sys, threading
from bundlefs.cli.bars import Bar
Bar.write("a line", file=sys.stderr)
with Bar(total=1, file=sys.stderr) as bar:
    bar.update(1)
loaded = [name for name in sys.modules if name.startswith("multiprocessing.")]
sys.exit(f"loaded: {loaded}" if "multiprocessing.synchronize" in loaded else 0)
"""


def test_a_bar_has_no_lock_for_processes() -> None:
    """Python's watcher over those, a process, keeps the streams of whoever starts it."""
    done = subprocess.run([sys.executable, "-c", LOCK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_image_by_its_number(image: Path, mountpoint: Path) -> None:
    """As a shell's `<(...)`, or `{fd}<FILE`, names it."""
    with image.open("rb") as file:
        number = file.fileno()
        with mounted_by(f"/dev/fd/{number}", mountpoint, left=(number,)):
            assert len(list(mountpoint.glob("*.part.*"))) == 2


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "2>&1 >&-", ">/dev/full 2>&1"])
def test_a_mount_without_streams(redirected: str, image: Path, mountpoint: Path) -> None:
    """Also with warnings to print and to log."""
    script = f'"$@" {redirected}'
    words = [*BUNDLEFS, "mount", "--sloppy", "-o", "unknown", str(image), str(mountpoint)]
    for more in ((), ("--account", OTHER)):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words, *more],
            env=settings(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done
        clear(mountpoint, int(read_status(mountpoint)["pid"]))


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_a_mount_in_the_foreground_whose_log_is_gone(
    kind: str, image: Path, mountpoint: Path
) -> None:
    reader, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    process = subprocess.Popen(
        [*BUNDLEFS, "mount", "-f", str(image), str(mountpoint)],
        env=settings(),
        stdin=subprocess.DEVNULL,
        stderr=full if kind == "full" else writer,
    )
    for number in (reader, writer, full):
        os.close(number)
    try:
        assert eventually(lambda: is_mounted(mountpoint))
        assert len(list(mountpoint.glob("*.part.*"))) == 2
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        detach(mountpoint)
