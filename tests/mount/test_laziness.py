"""What a real mount reads of its image and when; who waits for whom, and who never waits.

Nothing here looks at a clock. Where somebody must not wait, somebody else does
so at that very time: the order of answers is the proof.
"""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support import images
from tests.support.mounts import Mount, bundlefs, mounted
from tests.support.tools import run

MIB = images.MIB
GIB = 1024 * MIB
PART = 10 * MIB
WAITERS = 100
HANG = 60
STATELESS = ("--state", "none")
SLOW = (*STATELESS, "--level", "9", "--jobs", "1")
"""Some seconds for `noise`: long enough to ask many things meanwhile."""
FAR = (*STATELESS, "--level", "0", "--jobs", "1", "--no-sparse")
"""Level 0 knows all sizes, so that who wants bytes far ahead waits in `read`."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 GiB, of which all but the first 100 MiB are a hole."""
    data = {0: b"".join(images.noise(100 * MIB))}
    return images.sparse_image(tmp_path_factory.mktemp("large") / "disk", 10 * GIB, data)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 MiB that no codec makes smaller."""
    return images.random_image(tmp_path_factory.mktemp("noise") / "disk", 120 * MIB)


@pytest.fixture
def zeros(tmp_path: Path) -> Path:
    """30 MiB of zeros that are no hole: one part, though four are possible."""
    return images.tuned_image(tmp_path / "disk", 0, 30 * MIB)


def untouched(mount: Mount) -> bool:
    """Whether nothing was asked of the image yet."""
    status = mount.status()
    return (status["phase"], status["image_bytes_read"], status["blocks_compressed"]) == (
        *("idle", 0, 0),
    )


# --- what is read ---


@pytest.mark.parametrize("options", [(), ("--no-sparse",), ("--level", "0"), ("--no-sparse", "-v")])
def test_a_mount_reads_nothing(large: Path, mountpoint: Path, options: tuple[str, ...]) -> None:
    with mounted(large, mountpoint, *STATELESS, *options) as mount:
        assert untouched(mount)
        mount.path.stat()
        os.statvfs(mount.path)
        for name in ("nothing", "image", "image.part.99999", "image.part.0", ".bundlefs/nothing"):
            assert not (mount.path / name).exists()
        assert untouched(mount)


def test_a_name_is_found_without_reading(large: Path, mountpoint: Path) -> None:
    with mounted(large, mountpoint, *STATELESS, "--no-sparse") as mount:
        # O_PATH looks a name up and asks for nothing else.
        for name in ("image.part.0000", "image.part.0700", "image.manifest.xml"):
            os.close(os.open(mount.path / name, os.O_PATH))
        assert untouched(mount)


@pytest.mark.parametrize("options", [(), ("--no-sparse",), ("--level", "1", "--cache-size", "0")])
def test_the_beginning_costs_the_beginning(
    large: Path, mountpoint: Path, options: tuple[str, ...]
) -> None:
    with mounted(large, mountpoint, *STATELESS, *options) as mount:
        first = mount.path / f"image.part.{'0' * width(mount)}"
        assert len(run(["head", "-c", "1M", first])) == MIB
        status = mount.status()
        assert PART <= status["image_bytes_read"] < 64 * MIB
        assert status["phase"] in ("idle", "indexing")
        assert eventually(lambda: mount.status()["phase"] == "idle")
        assert mount.status()["image_bytes_read"] < 64 * MIB


def width(mount: Mount) -> int:
    """Tell how many digits the parts of a mount have, without asking it for a listing."""
    names = [f"image.part.{'0' * digits}" for digits in (2, 3, 4)]
    found = [name for name in names if can_be_opened(mount.path / name)]
    assert len(found) == 1, found
    return len(found[0]) - len("image.part.")


def can_be_opened(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_PATH))
    except FileNotFoundError:
        return False
    return True


def test_a_stat_costs_its_part(large: Path, mountpoint: Path) -> None:
    with mounted(large, mountpoint, *STATELESS) as mount:
        assert (mount.path / "image.part.01").stat().st_size == PART
        assert 2 * PART <= mount.status()["image_bytes_read"] < 64 * MIB
        assert (mount.path / "image.part.00").stat().st_size == PART
        assert mount.status()["parts_made"] == 2


def test_a_listing_costs_the_data_and_no_hole(large: Path, mountpoint: Path) -> None:
    with mounted(large, mountpoint, *STATELESS, "--level", "1") as mount:
        names = sorted(os.listdir(mount.path))  # noqa: PTH208 - names as the kernel gives them
        status = mount.status()
        assert names == ["image.manifest.xml", *(f"image.part.{n:02}" for n in range(11))]
        assert status["phase"] == "complete"
        assert status["image_bytes_read"] == 100 * MIB
        # Sizes came with the listing: nothing is read for them.
        sizes = [path.stat().st_size for path in mount.parts()]
        assert sizes == [PART] * 10 + [status["sealed_bytes"] - 10 * PART]
        assert mount.status()["image_bytes_read"] == 100 * MIB


def test_level_0_lists_without_reading(large: Path, mountpoint: Path) -> None:
    with mounted(large, mountpoint, *FAR) as mount:
        names = [path.name for path in mount.parts()]
        assert names == [f"image.part.{n:04}" for n in range(1025)]
        assert {path.stat().st_size for path in mount.parts()[:-1]} == {PART}
        assert mount.manifest().stat().st_size > 1025 * 40
        assert untouched(mount)


def test_eager_starts_at_once(noise: Path, mountpoint: Path) -> None:
    with mounted(noise, mountpoint, *STATELESS, "--level", "1", "--eager") as mount:
        assert eventually(lambda: mount.status()["phase"] == "complete", HANG)


def test_a_part_that_may_be_is_told_from_one_that_is_not(zeros: Path, mountpoint: Path) -> None:
    with mounted(zeros, mountpoint, *STATELESS) as mount:
        assert can_be_opened(mount.path / "image.part.02")
        # 30 MiB of tar and some bytes of frame: a fourth part is possible, a fifth is not.
        assert not can_be_opened(mount.path / "image.part.04")
        assert untouched(mount)
        for name in ("image.part.02", "image.part.01"):
            assert not (mount.path / name).exists()
            assert not can_be_opened(mount.path / name)
        assert mount.status()["phase"] == "complete"
        assert [path.name for path in mount.parts()] == ["image.part.00"]


@pytest.mark.parametrize("how", ["getxattr", "read", "sendfile"])
def test_a_part_that_is_not_there_cannot_be_used(zeros: Path, mountpoint: Path, how: str) -> None:
    uses: dict[str, Callable[[Path], object]] = {
        "getxattr": lambda path: os.getxattr(path, "user.bundlefs.sha1"),
        "read": lambda path: path.read_bytes(),
        "sendfile": send,
    }
    with mounted(zeros, mountpoint, *STATELESS) as mount:
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                uses[how](mount.path / "image.part.02")
        assert mount.status()["phase"] == "complete"
        assert uses[how](mount.path / "image.part.00")


def send(path: Path) -> int:
    """Send a file's first 100 bytes without asking for its size."""
    with path.open("rb", buffering=0) as part, Path("/dev/null").open("wb") as sink:
        return os.sendfile(sink.fileno(), part.fileno(), 0, 100)


# --- who waits ---


@dataclass(slots=True)
class Crowd:
    """Threads that wait for a mount; `first` asks first."""

    mount: Mount
    connections: Path
    pool: ThreadPoolExecutor
    waiting: list[Future[object]] = field(default_factory=list)

    def add(self, ask: Callable[[], object]) -> None:
        """Have one more thread ask something."""
        self.waiting.append(self.pool.submit(ask))

    def still_waits(self) -> bool:
        """Whether nobody has been answered."""
        return not any(future.done() for future in self.waiting)

    @property
    def connection(self) -> Path:
        """The kernel's account of the mount."""
        return self.connections / str(os.minor(self.mount.path.stat().st_dev))

    def assembled(self) -> bool:
        """Wait until the mount owes an answer to each, as the kernel counts."""
        owed = self.connection / "waiting"
        return eventually(lambda: int(owed.read_text()) >= len(self.waiting), HANG)

    def errors(self) -> set[int | None]:
        """Wait for all of them to fail, and give the errnos."""
        hanging = wait(self.waiting, HANG).not_done
        assert not hanging, f"{len(hanging)} hang"
        errors = [future.exception() for future in self.waiting]
        assert all(isinstance(error, OSError) for error in errors), errors
        return {error.errno for error in errors if isinstance(error, OSError)}


@contextmanager
def crowded(mount: Mount, connections: Path) -> Iterator[Crowd]:
    """Have threads wait for a mount; at the end it is told to end, and answers them all."""
    with ThreadPoolExecutor(WAITERS + 8) as pool:
        crowd = Crowd(mount, connections, pool)
        try:
            yield crowd
        finally:
            os.kill(mount.pid, signal.SIGTERM)
        assert crowd.errors() <= {errno.ENOTCONN, errno.ECONNABORTED}


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kernel's own account of FUSE mounts, which few containers have at its place."""
    folder = tmp_path_factory.mktemp("connections")
    subprocess.run(["mount", "-t", "fusectl", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def asks_all_that_never_waits(mount: Mount) -> None:
    """Ask everything that may be asked while others wait; each must be answered."""
    assert mount.status()["phase"] == "indexing"
    assert mount.path.stat().st_nlink == 2
    assert (mount.path / ".bundlefs").is_dir()
    assert (mount.path / ".bundlefs/status.json").exists()
    assert os.listdir(mount.path / ".bundlefs") == []  # noqa: PTH208 - never listed
    assert not (mount.path / "nothing").exists()
    assert can_be_opened(mount.path / "image.part.07")
    assert can_be_opened(mount.path / "image.manifest.xml")
    assert os.statvfs(mount.path).f_bavail == 0
    assert "indexing" in bundlefs("status", mount.path)


def test_all_else_is_answered_while_a_listing_waits(
    noise: Path, mountpoint: Path, connections: Path
) -> None:
    with mounted(noise, mountpoint, *SLOW) as mount, crowded(mount, connections) as crowd:
        first = mount.path / "image.part.00"
        assert first.stat().st_size == PART
        crowd.add(partial(os.listdir, mount.path))
        crowd.add(mount.manifest().stat)
        assert crowd.assembled()
        asks_all_that_never_waits(mount)
        assert first.stat().st_size == PART
        assert len(first.read_bytes()) == PART
        assert len(os.getxattr(first, "user.bundlefs.sha1")) == 40
        assert crowd.still_waits()


def test_all_else_is_answered_while_many_wait_for_sizes(
    noise: Path, mountpoint: Path, connections: Path
) -> None:
    with mounted(noise, mountpoint, *SLOW) as mount, crowded(mount, connections) as crowd:
        first = mount.path / "image.part.00"
        assert first.stat().st_size == PART
        for _ in range(WAITERS):
            crowd.add((mount.path / "image.part.11").stat)
        assert crowd.assembled()
        asks_all_that_never_waits(mount)
        assert first.stat().st_size == PART
        assert len(first.read_bytes()) == PART
        assert crowd.still_waits()


def test_all_else_is_answered_while_many_wait_for_bytes(
    large: Path, mountpoint: Path, connections: Path
) -> None:
    with mounted(large, mountpoint, *FAR) as mount, crowded(mount, connections) as crowd:
        # What the mount asks for itself where fusectl is at its place and it may: the kernel's
        # default is that a thirteenth read waits until one of twelve is answered.
        (crowd.connection / "max_background").write_text("256")
        for number in range(WAITERS):
            part = mount.path / f"image.part.{900 + number:04}"
            how = os.O_RDONLY | (os.O_DIRECT if number % 2 else 0)
            crowd.add(partial(read_at, part, number * 4096, how))
        assert crowd.assembled()
        assert mount.status()["phase"] == "indexing"
        assert not (mount.path / "nothing").exists()
        assert len((mount.path / "image.part.0000").read_bytes()) == PART
        assert len(mount.parts()) == 1025
        assert (mount.path / "image.part.1000").stat().st_size == PART
        assert mount.status()["phase"] == "indexing"
        assert crowd.still_waits()


def read_at(path: Path, offset: int, how: int) -> bytes:
    part = os.open(path, how)
    try:
        return os.pread(part, 4096, offset)
    finally:
        os.close(part)


def test_who_waits_is_answered_in_the_order_of_the_stream(noise: Path, mountpoint: Path) -> None:
    answered: list[int] = []

    def ask(mount: Mount, number: int) -> None:
        assert (mount.path / f"image.part.{number:02}").stat().st_size == PART
        answered.append(number)

    with mounted(noise, mountpoint, *STATELESS, "--level", "8", "--jobs", "1") as mount:
        numbers = [9, 3, 6, 0]
        with ThreadPoolExecutor(len(numbers)) as pool:
            asked = [pool.submit(ask, mount, number) for number in numbers]
            for future in asked:
                future.result(HANG)
        assert mount.status()["parts_made"] >= 10
    assert answered == sorted(numbers)


def test_all_who_wait_get_what_they_wait_for(noise: Path, mountpoint: Path) -> None:
    def read(mount: Mount, number: int) -> int:
        return len((mount.path / f"image.part.{number % 12:02}").read_bytes())

    with mounted(noise, mountpoint, *STATELESS, "--level", "1") as mount:
        with ThreadPoolExecutor(WAITERS) as pool:
            sizes = list(pool.map(partial(read, mount), range(WAITERS)))
        expected = [(mount.path / f"image.part.{n % 12:02}").stat().st_size for n in range(WAITERS)]
    assert sizes == expected
