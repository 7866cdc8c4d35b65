"""Every file at every moment has the size that it has: for tools that go by it, and that do not.

sendfile(2) reads no further than the kernel's idea of a file's size, and asks nobody: where
that is 0, `busybox cat` gives nothing and is content. Python's and most other programs' ways
to open a file ask for its size at once, and hide that.
"""

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import images
from tests.support.mounts import Mount, mounted
from tests.support.tools import run, tool

MIB = images.MIB
SLOW = ("--state", "none", "--level", "6", "--jobs", "1")
READERS = 8


def by_sendfile(path: Path) -> bytes:
    """Send a file to a pipe as busybox does: open(2), sendfile(2) until it gives 0."""
    source = os.open(path, os.O_RDONLY)
    return piped(lambda sink: send_all(source, sink))


def by_a_second_opening(path: Path) -> bytes:
    """Open by a descriptor that was got without asking anything; then as `by_sendfile`."""
    found = os.open(path, os.O_PATH)
    source = os.open(f"/proc/self/fd/{found}", os.O_RDONLY)
    os.close(found)
    return piped(lambda sink: send_all(source, sink))


def send_all(source: int, sink: int) -> None:
    try:
        while os.sendfile(sink, source, None, 16 * MIB):
            pass
    finally:
        os.close(source)


def by_splice(path: Path) -> bytes:
    """Move a file into a pipe by splice(2)."""
    source = os.open(path, os.O_RDONLY)

    def move(sink: int) -> None:
        try:
            while os.splice(source, sink, MIB):
                pass
        finally:
            os.close(source)

    return piped(move)


def piped(work: Callable[[int], None]) -> bytes:
    """Give what `work` writes into a pipe."""
    reader, writer = os.pipe()

    def write() -> None:
        try:
            work(writer)
        finally:
            os.close(writer)

    with ThreadPoolExecutor(1) as pool, os.fdopen(reader, "rb") as pipe:
        writing = pool.submit(write)
        data = pipe.read()
        writing.result()
    return data


def by_read(path: Path) -> bytes:
    """Read to the end and ask nothing."""
    source = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(source, 100_000), b""))
    finally:
        os.close(source)


def by_mmap(path: Path) -> bytes:
    """Map the size that fstat(2) gives."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        return mapped[:]


def by_size(path: Path) -> bytes:
    """Read as many bytes as stat(2) of the open file promises, in one call."""
    source = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(source).st_size
        data = os.pread(source, size + 1, 0)
        assert len(data) == size
        assert os.fstat(source).st_size == size
    finally:
        os.close(source)
    return data


def by_copyfile(path: Path) -> bytes:
    """Copy by Python's shutil, in a process of its own: it sends by sendfile(2)."""
    script = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
    return copied([sys.executable, "-c", script], path)


def by_cp(path: Path) -> bytes:
    """Copy by GNU's cp."""
    return copied(["cp"], path)


def copied(command: list[str], path: Path) -> bytes:
    copy = Path(f"/dev/shm/bundlefs-test-{os.getpid()}")  # noqa: S108  # any other file system
    try:
        run([*command, path, copy])
        return copy.read_bytes()
    finally:
        copy.unlink(missing_ok=True)


def command(*words: str) -> Callable[[Path], bytes]:
    """Give a reader: a command that writes a file to stdout."""
    return lambda path: run([tool(words[0]), *words[1:], path])


def by_dd(path: Path) -> bytes:
    """Read by dd, in blocks of an odd size."""
    return run(["dd", f"if={path}", "bs=65537", "status=none"])


WAYS: dict[str, Callable[[Path], bytes]] = {
    "sendfile": by_sendfile,
    "second opening": by_a_second_opening,
    "splice": by_splice,
    "read": by_read,
    "mmap": by_mmap,
    "size": by_size,
    "copyfile": by_copyfile,
    "cp": by_cp,
    "cat": command("cat"),
    "busybox cat": command("busybox", "cat"),
    "dd": by_dd,
}
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("image") / "disk", 25 * MIB)


@pytest.fixture(scope="module")
def mount(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(image, tmp_path_factory.mktemp("one") / "mnt", "--state", "none") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount of hundreds of images, whose status is far longer than a page."""
    images_folder = tmp_path_factory.mktemp("images")
    for number in range(300):
        (images_folder / f"disk-{number:03}.img").write_bytes(bytes(4096))
    with mounted(images_folder, tmp_path_factory.mktemp("many") / "mnt", "--state", "none") as made:
        assert len(os.listdir(made.path)) == 300  # noqa: PTH208  # names alone
        yield made


def is_whole(path: Path, content: bytes) -> bool:
    """Tell whether this is all of a file in .bundlefs."""
    if path.name == "status.json":
        return bool(json.loads(content)["mountpoint"])
    assert list(text_string_to_metric_families(content.decode()))
    # Values differ from moment to moment, the metrics do not.
    return content.count(b"# HELP") == by_read(path).count(b"# HELP") and content.endswith(b"\n")


@every_way
@pytest.mark.parametrize("name", ["status.json", "metrics"])
@pytest.mark.parametrize("which", ["mount", "folder", "in a folder"])
def test_a_file_that_is_made_when_looked_up(
    which: str, name: str, way: str, request: pytest.FixtureRequest
) -> None:
    fixture: Mount = request.getfixturevalue("mount" if which == "mount" else "folder")
    below = fixture.path / "disk-007.img" if which == "in a folder" else fixture.path
    path = below / ".bundlefs" / name
    for _ in range(2):
        assert path.stat().st_size > 100
        assert is_whole(path, WAYS[way](path))


def test_the_files_of_the_control_folder_keep_their_numbers(mount: Mount) -> None:
    """GNU's cp, for one, refuses a file that was replaced between two looks."""
    for name in ("status.json", "metrics"):
        path = mount.path / ".bundlefs" / name
        with path.open("rb") as stream:
            numbers = {os.fstat(stream.fileno()).st_ino, path.stat().st_ino, path.stat().st_ino}
        assert len(numbers) == 1


def test_a_snapshot_stays_what_it_was(mount: Mount) -> None:
    """Whoever opens it later, and by whatever way it is read, it is one document."""
    path = mount.path / ".bundlefs/status.json"
    with path.open("rb", buffering=0) as first:
        size = os.fstat(first.fileno()).st_size
        head = first.read(20)
        for _ in range(3):
            assert json.loads(by_sendfile(path))
        rest = piped(lambda sink: send_all(os.dup(first.fileno()), sink))
        assert json.loads(head + rest)["pid"] == mount.pid
        assert len(head + rest) == size


def test_many_readers_at_once_while_the_status_changes(image: Path, mountpoint: Path) -> None:
    with (
        mounted(image, mountpoint, *SLOW) as mount,
        ThreadPoolExecutor(READERS + 1) as pool,
    ):
        listing = pool.submit(mount.parts)
        path = mount.path / ".bundlefs/status.json"

        def read_on(way: str) -> set[str]:
            found = set()
            while not listing.done():
                found.add(str(json.loads(WAYS[way](path))["phase"]))
            return found

        ways = ["sendfile", "splice", "read", "mmap", "size"]
        reading = [pool.submit(read_on, ways[number % len(ways)]) for number in range(READERS)]
        assert listing.result()
        assert set().union(*(one.result() for one in reading)) >= {"indexing"}


def test_a_status_that_is_mounted_elsewhere_is_of_now(mount: Mount, tmp_path: Path) -> None:
    """A container's volume may be this one file: no lookup comes before the opening."""
    here = tmp_path / "status"
    here.touch()
    run(["mount", "--bind", mount.path / ".bundlefs/status.json", here])
    try:
        seen = [json.loads(here.read_text())["seconds"]]
        while len(set(seen)) < 3:
            seen.append(json.loads(by_read(here))["seconds"])
        assert seen == sorted(seen)
        assert json.loads(WAYS["busybox cat"](here))
    finally:
        run(["umount", here])


# Parts and manifests of which nothing is known yet


@every_way
@pytest.mark.parametrize("name", ["image.part.00", "image.part.02", "image.manifest.xml"])
def test_a_file_that_is_not_made_yet(name: str, way: str, image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, "--state", "none") as mount:
        content = WAYS[way](mount.path / name)
        assert content == (mount.path / name).read_bytes()
        assert len(content) > 1000
        if name == "image.part.00":
            assert len(content) == 10 * MIB
        else:
            assert mount.status()["phase"] == "complete"


@pytest.mark.parametrize("way", [way for way in WAYS if way != "mmap"])
def test_a_part_that_will_not_exist(way: str, image: Path, mountpoint: Path) -> None:
    with (
        mounted(image, mountpoint, "--state", "none") as mount,
        pytest.raises((FileNotFoundError, AssertionError), match="No such file"),
    ):
        WAYS[way](mount.path / "image.part.03")


def test_many_that_open_a_part_at_once(image: Path, mountpoint: Path) -> None:
    ways = ["sendfile", "second opening", "splice", "read", "sendfile", "size"]
    with mounted(image, mountpoint, *SLOW) as mount, ThreadPoolExecutor(len(ways)) as pool:
        parts = list(pool.map(lambda way: WAYS[way](mount.path / "image.part.02"), ways))
        assert len(set(parts)) == 1
        assert parts[0] == mount.parts()[2].read_bytes()


def test_an_opening_that_waits_holds_up_nobody(image: Path, mountpoint: Path) -> None:
    with (
        mounted(image, mountpoint, *SLOW) as mount,
        subprocess.Popen(
            [tool("busybox"), "cat", mount.manifest()], stdout=subprocess.PIPE
        ) as waiting,
    ):
        assert mount.status()["phase"] in ("idle", "indexing")
        assert not (mount.path / "nothing").exists()
        assert waiting.stdout
        assert b"</manifest>" in waiting.stdout.read()
