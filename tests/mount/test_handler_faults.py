"""An exception thrown inside any handler, whatever it is, leaves the mount alive.

pyfuse3 ends the whole mount on an exception that is no FUSEError. Faults are
thrown in a live mount, from a process that runs `bundlefs mount` with a hook.
"""

import errno
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import pytest

import bundlefs.fuse.operations
import bundlefs.fuse.views
from tests.mount.commands import eventually
from tests.mount.faulty_mount import ERRORS, operations
from tests.support import images
from tests.support.mounts import detach, is_mounted, read_status, require_fuse, settings

MIB = images.MIB
PART = 10 * MIB
END_SECONDS = 30
DIGEST = "user.bundlefs.sha1"

ERRNOS = {
    "ImageChangedError": errno.ESTALE,
    "UnknownNameError": errno.ENOENT,
    "ClosedError": errno.ENOTCONN,
    "OSError 121": 121,
}
"""What the caller sees; EIO for all others."""
EXPECTED = {*ERRNOS, "OSError", "BundlefsError", "InconsistentError"}
"""Errors that are no surprise, so that the log needs no traceback."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """A live mount that breaks on demand."""

    path: Path
    log: Path
    process: subprocess.Popen[str]

    def order(self, **order: object) -> int:
        """Mend all, break something, or ask for the errors raised since the last mending."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    @property
    def first(self) -> Path:
        return self.path / "image.part.00"

    def assert_well(self) -> None:
        """Use all that there is to use."""
        names = ["image.manifest.xml", "image.part.00", "image.part.01"]
        assert sorted(os.listdir(self.path)) == names  # noqa: PTH208 - names as the kernel gives them
        assert len(self.first.read_bytes()) == self.first.stat().st_size == PART
        assert len(os.getxattr(self.first, DIGEST)) == 40
        assert os.listxattr(self.first) == [DIGEST]
        assert os.statvfs(self.path).f_blocks > 0
        assert not (self.path / "nothing").exists()
        assert (self.path / "image.manifest.xml").read_bytes().startswith(b"<?xml")
        assert read_status(self.path)["phase"] == "complete"
        assert self.process.poll() is None


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("faults") / "disk", 15 * MIB)


@contextmanager
def faulty(image: Path, mountpoint: Path) -> Iterator[Faulty]:
    """Mount `image` with faults on demand; at the end it must end by itself when told to."""
    require_fuse()
    log = mountpoint.with_name("log")
    options = ["--state", "none", "--level", "1", "--log-file", str(log)]
    command = [sys.executable, "-m", "tests.mount.faulty_mount", *options]
    with subprocess.Popen(
        [*command, str(image), str(mountpoint)],
        env=settings(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert eventually(lambda: is_mounted(mountpoint) or process.poll() is not None, 60)
            yield Faulty(mountpoint, log, process)
            process.terminate()
            assert process.wait(END_SECONDS) == 0
            assert not is_mounted(mountpoint)
        finally:
            process.kill()
            detach(mountpoint)


@pytest.fixture
def mount(image: Path, mountpoint: Path) -> Iterator[Faulty]:
    with faulty(image, mountpoint) as mount:
        yield mount


# --- what reaches which handler ---

Action = Callable[[], object]
"""Something that reaches the handler in question as soon as it is called."""


def stat(mount: Faulty) -> Iterator[Action]:
    yield mount.first.stat


def getattr_alone(mount: Faulty) -> Iterator[Action]:
    file = os.open(mount.path / "image.part.01", os.O_PATH)
    yield Path(f"/proc/self/fd/{file}").stat
    os.close(file)


def listing(mount: Faulty) -> Iterator[Action]:
    yield lambda: os.listdir(mount.path)  # noqa: PTH208 - the path's own way hides an error


def rest_of_a_listing(mount: Faulty) -> Iterator[Action]:
    with os.scandir(mount.path) as entries:
        yield lambda: list(entries)


def end_of_a_listing(mount: Faulty) -> Iterator[Action]:
    with os.scandir(mount.path / ".bundlefs") as entries:
        yield entries.close


def opening(mount: Faulty) -> Iterator[Action]:
    yield lambda: os.close(os.open(mount.first, os.O_RDONLY))


def reading(mount: Faulty) -> Iterator[Action]:
    with mount.first.open("rb", buffering=0) as part:
        # Around the page cache, which would answer for what it was given before.
        os.posix_fadvise(part.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield lambda: os.pread(part.fileno(), 100, 5 * MIB)


def ending_to_read(mount: Faulty) -> Iterator[Action]:
    with closing(mount.first.open("rb", buffering=0)) as part:
        yield part.close


def getxattr(mount: Faulty) -> Iterator[Action]:
    yield lambda: os.getxattr(mount.first, DIGEST)


def listxattr(mount: Faulty) -> Iterator[Action]:
    yield lambda: os.listxattr(mount.first)


def statvfs(mount: Faulty) -> Iterator[Action]:
    yield lambda: os.statvfs(mount.path)


def status(mount: Faulty) -> Iterator[Action]:
    yield lambda: read_status(mount.path)


HANDLERS: dict[str, Callable[[Faulty], Iterator[Action]]] = {
    "lookup": stat,
    "getattr": getattr_alone,
    "opendir": listing,
    "readdir": rest_of_a_listing,
    "releasedir": end_of_a_listing,
    "open": opening,
    "read": reading,
    "release": ending_to_read,
    "getxattr": getxattr,
    "listxattr": listxattr,
    "statfs": statvfs,
}
SILENT = {"release", "releasedir"}
"""The kernel waits for no answer, so nobody sees an error."""

ENDS_A_LISTING = ("readdir", "UnknownNameError")
"""Has a test of its own."""

METHODS: dict[str, Callable[[Faulty], Iterator[Action]]] = {
    "find": stat,
    "key": stat,
    "known_size": stat,
    "entry": getattr_alone,
    "when_sized": getattr_alone,
    "when_listed": listing,
    "entries": listing,
    "name": listing,
    "read_fast": reading,
    "when_reached": reading,
    "when_read": reading,
    "has_digest": getxattr,
    "when_digested": getxattr,
    "digest": getxattr,
    "when_checked": opening,
    "look": status,
    "status": status,
    "space": statvfs,
}
# Bytes that are in memory are given without asking for more.
BESIDES: dict[str, dict[str, None]] = {
    "when_reached": {"read_fast": None},
    "when_read": {"read_fast": None},
}


def throw(mount: Faulty, kind: str, name: str, error: str, *, silent: bool = False) -> None:
    """Throw one error, see it arrive, and see the mount alive without it."""
    tries = {"handler": HANDLERS, "bundle": METHODS}[kind][name](mount)
    action = next(tries)
    besides = BESIDES.get(name, {}) if kind == "bundle" else {}
    mount.order(**{"break": {kind: {**besides, name: error}}})
    if silent:
        action()
        assert eventually(lambda: mount.order(count=True) > 0)
        mount.order()
    else:
        with pytest.raises(OSError, match=r"Errno") as caught:
            action()
        assert mount.order() > 0, "the fault was not reached"
        assert caught.value.errno == ERRNOS.get(error, errno.EIO)
    assert list(tries) == []
    assert read_status(mount.path)["phase"] != "failed"


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_fault_in_a_handler(mount: Faulty, handler: str) -> None:
    for error in ERRORS:
        if (handler, error) != ENDS_A_LISTING:
            throw(mount, "handler", handler, error, silent=handler in SILENT)
    mount.assert_well()


@pytest.mark.parametrize("method", METHODS)
def test_a_fault_in_the_bundle(mount: Faulty, method: str) -> None:
    for error in ERRORS:
        throw(mount, "bundle", method, error)
    mount.assert_well()


def test_a_listing_that_fails_never_looks_shorter(mount: Faulty) -> None:
    with os.scandir(mount.path) as entries:
        mount.order(**{"break": {"handler": {"readdir": "UnknownNameError"}}})
        with pytest.raises(OSError, match="Errno"):
            list(entries)
    mount.order()
    mount.assert_well()


def test_a_fault_when_the_kernel_forgets(tmp_path: Path, mountpoint: Path) -> None:
    """A name that may be is found, and is forgotten when it has turned out not to be."""
    zeros = images.tuned_image(tmp_path / "disk", 0, 12 * MIB)
    with faulty(zeros, mountpoint) as mount:
        maybe = mount.path / "image.part.01"
        assert not maybe.exists()
        mount.order(**{"break": {"handler": {"forget": "RuntimeError"}}})
        assert not maybe.exists()
        assert eventually(lambda: mount.order(count=True) > 0)
        mount.order()
        assert read_status(mount.path)["phase"] == "complete"
        assert len(mount.first.read_bytes()) == mount.first.stat().st_size


def test_surprises_are_logged_with_their_traceback(mount: Faulty) -> None:
    for error in ERRORS:
        before = mount.log.stat().st_size
        throw(mount, "handler", "statfs", error)
        logged = mount.log.read_text()[before:]
        assert ("Traceback" in logged) is (error not in EXPECTED), error
        assert ("ERROR" in logged) is (error not in EXPECTED), error


def test_every_handler_is_guarded() -> None:
    own = {name: kind for name, kind in vars(operations()).items() if not name.startswith("_")}
    unguarded = [name for name, kind in own.items() if not hasattr(kind, "__wrapped__")]
    assert unguarded == []
    # What is not here is pyfuse3's own, which refuses politely.
    assert set(own) == {*HANDLERS, "forget"}
    assert set(own) <= {name for name in dir(pyfuse3.Operations) if not name.startswith("_")}


def test_every_question_to_the_bundle_is_among_the_faults() -> None:
    views = bundlefs.fuse.views
    kinds = (views.View, views.OnDemand, views.Watched, views.WithDigests)
    asked = [name for kind in kinds for name, _ in inspect.getmembers(kind, inspect.isfunction)]
    assert {name for name in asked if not name.startswith("_")} - {"close"} == set(METHODS)
