"""Whoever waits for a mount can be killed, whatever the storage does; nobody else notices."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.mount.hanging_disk import Storage, hanging_disk
from tests.support import images
from tests.support.mounts import Mount, mounted
from tests.support.tools import run, tool

MIB = images.MIB
SIZE = 96 * MIB
GOOD = 24 * MIB
PROMPT = 10.0
"""Seconds, on a busy machine; on an idle one it takes half of one, or one who reads two."""
OPTIONS = ("--state", "none", "--level", "1", "--cache-size", "0", "--no-page-cache")
PART, EARLY = "image.part.07", "image.part.03"
"""Both are behind `GOOD`; the blocks of the first may still be in memory."""
DIGEST = "user.bundlefs.sha1"

CAUGHT = """
import os, signal, sys
def end(*_):
    os.write(1, b"caught"); os._exit(7)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, end)
os.write(1, b"go")
print(os.listdir(sys.argv[1]) if sys.argv[2] == "list" else os.stat(sys.argv[1]))
"""
HANDLED = """
import os, signal, sys
heard = []
for number in map(int, sys.argv[2:]):
    signal.signal(number, lambda number, _: heard.append(number))
os.write(1, b"go")
print(os.stat(sys.argv[1]).st_size, len(os.listdir(os.path.dirname(sys.argv[1]))))
with open(sys.argv[1], "rb") as part:
    print(len(part.read()))
print(*heard)
"""


@dataclass(frozen=True, slots=True)
class Hung:
    """A mount whose image hangs behind `GOOD`, and the kernel's own account of it."""

    mount: Mount
    storage: Storage
    owed: Path

    def waiters(self) -> int:
        """Count the requests that the mount has not answered."""
        return int(self.owed.read_text())

    @contextmanager
    def waiting(self, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until it waits for the mount; it is killed in the end."""
        with subprocess.Popen(
            [*command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                assert eventually(lambda: waits(process.pid)), process.poll()
                yield process
            finally:
                process.kill()

    def recovers(self) -> None:
        """See the mount go on once its storage does, with the right bytes."""
        self.storage.release()
        for part in self.mount.parts():
            digest = run(["sha1sum", part]).decode().split()[0]
            assert digest == os.getxattr(part, DIGEST).decode()
        assert self.mount.status()["phase"] == "complete"


def waits(pid: int) -> bool:
    """Whether a process waits in the kernel for FUSE, or for a page that FUSE is to fill.

    A request that is answered at once is waited for as well: it must do so for a while.
    """
    for _ in range(3):
        where = Path(f"/proc/{pid}/wchan").read_text()
        if not where.startswith(
            ("request_wait", "fuse_", "__fuse_", "folio_wait", "__folio", "wait_on")
        ):
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("content") / "disk", SIZE)


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kernel's own account of FUSE mounts, which few containers have at its place."""
    folder = tmp_path_factory.mktemp("connections")
    subprocess.run(["mount", "-t", "fusectl", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def hanging(content: Path, connections: Path, folder: Path, *, made: bool) -> Iterator[Hung]:
    """Mount an image that hangs in its pass, or once all is made."""
    with (
        hanging_disk(folder / "storage", content, "direct") as storage,
        mounted(storage.folder / "disk", folder / "mnt", *OPTIONS) as mount,
    ):
        if made:
            assert mount.parts()
        storage.hang(GOOD)
        device = os.minor(mount.path.stat().st_dev)
        try:
            yield Hung(mount, storage, connections / str(device) / "waiting")
        finally:
            storage.release()


@pytest.fixture(scope="module")
def passing(
    content: Path, connections: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hung]:
    """A mount that hangs in its pass; in the end it goes on."""
    folder = tmp_path_factory.mktemp("passing")
    with hanging(content, connections, folder, made=False) as hung:
        yield hung
        hung.recovers()


@pytest.fixture(scope="module")
def reading(
    content: Path, connections: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hung]:
    """A mount whose storage hangs once all is made; in the end it goes on."""
    folder = tmp_path_factory.mktemp("reading")
    with hanging(content, connections, folder, made=True) as hung:
        yield hung
        hung.recovers()


ENDING = [
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGKILL,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGALRM,
]

FOR_THE_PASS = {
    "ls": ("ls", "{mount}"),
    "stat": ("stat", "{mount}/{part}"),
    "stat of a manifest": ("stat", "{mount}/image.manifest.xml"),
    "getfattr": ("getfattr", "-n", DIGEST, "{mount}/image.part.03"),
    "cat": ("cat", "{mount}/{part}"),
    "sendfile": ("busybox", "cat", "{mount}/{part}"),
    "head": ("head", "-c", "10", "{mount}/{part}"),
}
"""What opens, lists, or asks for what is not known yet."""


def words(command: tuple[str, ...], mount: Mount) -> list[str]:
    found = [word.format(mount=mount.path, part=PART) for word in command]
    return [tool(found[0]), *found[1:]]


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
@pytest.mark.parametrize("what", FOR_THE_PASS)
def test_who_waits_for_the_pass(what: str, number: signal.Signals, passing: Hung) -> None:
    with passing.waiting(*words(FOR_THE_PASS[what], passing.mount)) as process:
        process.send_signal(number)
        assert process.wait(PROMPT) == -number
    assert passing.mount.status()["phase"] in ("idle", "indexing")


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_who_waits_for_bytes_past_the_page_cache(number: signal.Signals, reading: Hung) -> None:
    """The kernel lets nobody give up such a read by itself, not even by SIGKILL."""
    part = reading.mount.path / EARLY
    command = ["dd", f"if={part}", "of=/dev/null", "iflag=direct", "bs=4096", "skip=100"]
    with reading.waiting(*command) as process:
        process.send_signal(number)
        # dd goes on at SIGUSR1: it tells how far it is.
        if number != signal.SIGUSR1:
            process.wait(PROMPT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_who_waits_for_bytes(number: signal.Signals, reading: Hung) -> None:
    with reading.waiting("cat", reading.mount.path / EARLY) as process:
        process.send_signal(number)
        assert process.wait(PROMPT) == -number


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=str
)
@pytest.mark.parametrize("what", ["list", "stat"])
def test_a_program_that_ends_in_its_own_way(
    what: str, number: signal.Signals, passing: Hung
) -> None:
    """A shell that completes a name, for one, would be lost otherwise."""
    path = passing.mount.path / ("" if what == "list" else PART)
    with passing.waiting(sys.executable, "-c", CAUGHT, path, what) as process:
        process.send_signal(number)
        assert process.wait(PROMPT) == 7
        assert process.stdout
        assert process.stdout.read() == b"gocaught"


def test_many_are_killed_at_once(passing: Hung) -> None:
    command = words(FOR_THE_PASS["ls"], passing.mount)
    crowd = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(50)]
    try:
        assert eventually(lambda: passing.waiters() >= len(crowd))
        for process in crowd[:25]:
            process.kill()
        for process in crowd[:25]:
            process.wait(PROMPT)
        assert all(process.poll() is None for process in crowd[25:])
    finally:
        for process in crowd:
            process.kill()
    for process in crowd:
        process.wait(PROMPT)
    assert eventually(lambda: passing.waiters() == 0)


def test_a_signal_that_ends_nobody_is_not_noticed(
    content: Path, connections: Path, tmp_path: Path
) -> None:
    """Timers, children, window sizes, a scheduler's own: no sink may fail for those."""
    sent = [signal.SIGALRM, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGUSR1]
    with hanging(content, connections, tmp_path, made=False) as hung:
        part = hung.mount.path / PART
        numbers = [str(int(number)) for number in sent]
        with hung.waiting(sys.executable, "-c", HANDLED, part, *numbers) as process:
            for number in (*sent, signal.SIGSTOP, signal.SIGCONT):
                process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            hung.storage.release()
            assert process.stdout
            shown = process.stdout.read().split()
            assert process.wait() == 0
        assert shown[:3] == [b"go10485760", b"11", b"10485760"]
        assert set(map(int, shown[3:])) == set(sent)


def test_a_killed_waiter_does_not_hold_the_mount(
    content: Path, connections: Path, tmp_path: Path
) -> None:
    with hanging(content, connections, tmp_path, made=False) as hung:
        with hung.waiting(*words(FOR_THE_PASS["ls"], hung.mount)) as process:
            process.kill()
            assert process.wait(PROMPT) == -signal.SIGKILL
        assert eventually(lambda: hung.waiters() == 0)
        hung.recovers()
