"""bundlefs commands that may fail, stay in the foreground, or run as somebody with fewer rights.

`tests.support.mounts` is for mounts that must succeed. Here a command is started as a user
starts it, and what it leaves behind is looked up in the kernel's own tables.
"""

import contextlib
import os
import pty
import select
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.mounts import (
    BUNDLEFS,
    COMMAND_SECONDS,
    detach,
    is_mounted,
    mount_table,
    settings,
)
from tests.support.tools import tool

MARK = "BUNDLEFS_TEST_MARK"
INTERRUPT, END = "\x03", "\x04"  # what Ctrl-C and Ctrl-D type
NOBODY = 65534
ROOT = os.geteuid() == 0

# A namespace of our own, to hide or replace /dev/fuse for one command alone.
UNSHARE = (tool("unshare"), "-m") if ROOT else (tool("unshare"), "-Urm")
# Root may read whatever it likes; without capabilities it is held to the file's mode.
POWERLESS = (
    *(() if ROOT else UNSHARE),
    *(tool("setpriv"), "--bounding-set=-all", "--inh-caps=-all"),
)
# The interpreter may lie where only root can read: import first, then become nobody.
AS_NOBODY = (
    *(sys.executable, "-c"),
    (
        "import os, sys; import bundlefs.cli.session; from bundlefs.cli import main, parser;"
        # Each command is imported while it may still be read.
        " parser();"
        f" os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY});"
        f" os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); sys.exit(main(sys.argv[1:]))"
    ),
)
IMPATIENT = (
    *(sys.executable, "-c"),
    (
        "import sys; from bundlefs.base import progress; from bundlefs.cli import main;"
        " progress._SOON_SECONDS = 0; sys.exit(main(sys.argv[1:]))"
    ),
)
"""Takes everything for long, and tells how far it is."""
AS_USER = AS_NOBODY if ROOT else BUNDLEFS
# Puts the rights that /dev/fuse has on most machines on it, in a namespace.
OPEN_FUSE = """
mount -t tmpfs none "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
shift
"""


ALONE = "umount --all --lazy --no-canonicalize --types fuse.bundlefs 2>/dev/null || true\n"
"""What a namespace begins with: its copies of other tests' mounts would keep those alive."""


def in_namespace(script: str, *arguments: str | Path) -> tuple[str, ...]:
    """Give the command that runs `script` with `arguments` as root of its own mounts."""
    return (*UNSHARE, tool("sh"), "-ec", ALONE + script, "sh", *map(str, arguments))


def as_user(script: str, *arguments: str | Path, scratch: Path) -> tuple[str, ...]:
    """Give the command that runs `script` where `AS_USER` may open /dev/fuse, as users mostly may.

    `scratch` is a folder to mount on, in the namespace.
    """
    if not ROOT:
        return (tool("sh"), "-ec", script, "sh", *map(str, arguments))
    return in_namespace(OPEN_FUSE + script, scratch, *arguments)


@contextlib.contextmanager
def users_folder() -> Iterator[Path]:
    """Make a folder that `AS_USER` owns and reaches, with `mnt` in it; pytest's are closed."""
    with tempfile.TemporaryDirectory(prefix="bundlefs-test-") as name:
        folder = Path(name)
        (folder / "mnt").mkdir()
        if ROOT:
            os.chown(folder / "mnt", NOBODY, NOBODY)
            os.chown(folder, NOBODY, NOBODY)
        yield folder


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended, and the environment variable that its processes carry."""

    code: int
    out: str
    err: str
    mark: str

    def processes(self) -> list[int]:
        """Give the live processes that the command left, daemons included."""
        entry = f"{MARK}={self.mark}".encode()
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if has(path, entry)]


def has(process: Path, entry: bytes) -> bool:
    """Whether the environment of a process holds `entry`; that of a zombie is empty."""
    try:
        return entry in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def attempt(
    *words: str | Path,
    program: Sequence[str] = BUNDLEFS,
    env: Mapping[str, str] | None = None,
    umask: int = -1,
) -> Ending:
    """Run a bundlefs command, without a terminal, that may end with any code.

    Args:
        words: its arguments.
        program: what to run in place of `python -m bundlefs`.
        env: variables on top of the machine's and the tests' account.
        umask: -1 for the tests' own.
    """
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [*program, *map(str, words)],
        env=settings({MARK: mark, **(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=umask,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Ending(done.returncode, out, err, mark)


def refusal(
    *words: str | Path,
    code: int,
    program: Sequence[str] = BUNDLEFS,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command that must be refused in one line; gives that line.

    The last of `words` is the mountpoint.

    Raises:
        AssertionError: another code, more to read than one line of ours, a mount or a process
            left behind.
    """
    before = mounts_at(words[-1])
    ending = attempt(*words, program=program, env=env)
    assert (ending.code, ending.out) == (code, ""), ending
    line, newline, more = ending.err.partition("\n")
    assert (newline, more) == ("\n", ""), ending.err
    assert line.startswith("bundlefs: "), line
    assert_nothing_left(ending)
    assert mounts_at(words[-1]) == before
    return line


def assert_nothing_left(ending: Ending) -> None:
    """Fail if a process of a command that has ended is alive after some seconds."""
    # The child of a refused mount answers its parent an instant before it ends.
    assert eventually(lambda: not ending.processes()), ending.processes()


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait up to `seconds` until something holds."""
    deadline = time.monotonic() + seconds
    # What holds for a moment has held: it is not asked again.
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def names(folder: Path) -> list[str]:
    """List a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def mounts_at(path: str | Path) -> int:
    """Count the mounts on exactly this path, one over the other, in the kernel's table."""
    return [line.split(" ")[4] for line in mount_table()].count(os.path.realpath(path))


@contextlib.contextmanager
def foreground(
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = BUNDLEFS,
) -> Iterator[subprocess.Popen[str]]:
    """Run `bundlefs mount -f` until the `with` ends; gives it as soon as the mount answers.

    The last of `words` is the mountpoint. Its stderr is a pipe.
    """
    process = subprocess.Popen(
        [*program, "mount", "-f", *map(str, words)],
        env=settings(dict(env or {})),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ending(process, Path(words[-1])):
        yield process


@contextlib.contextmanager
def ending(process: subprocess.Popen[str], mountpoint: Path) -> Iterator[None]:
    """Wait until a mount answers, and see to it that nothing of it is left."""
    try:
        assert eventually(lambda: is_mounted(mountpoint) or process.poll() is not None)
        assert process.poll() is None, "it ended before it was mounted"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        detach(mountpoint)


@dataclass(slots=True)
class Terminal:
    """A real terminal with a command in it; `shown` is all that it has written so far."""

    process: subprocess.Popen[str]
    master: int
    shown: str = field(default="")

    def type(self, text: str) -> None:
        """Press keys, `INTERRUPT` and `END` among them."""
        os.write(self.master, text.encode())

    def wait_for(self, text: str) -> None:
        """Read on until `text` has been shown."""
        while text not in self.shown:
            piece = self.read()
            assert piece, f"{text!r} was not shown: {self.shown!r}"

    def read(self) -> str:
        """Read what is there, waiting for it; nothing at the end."""
        assert select.select([self.master], [], [], COMMAND_SECONDS)[0], self.shown
        try:
            piece = os.read(self.master, 65536).decode(errors="replace")
        except OSError:  # Linux says EIO once no process has the terminal open
            piece = ""
        self.shown += piece
        return piece

    def hang_up(self) -> None:
        """Close the terminal, as the button of its window does."""
        with Path(os.devnull).open("r+b", buffering=0) as null:
            os.dup2(null.fileno(), self.master)

    def finish(self) -> int:
        """Read to the end and give the exit code."""
        while self.read():
            pass
        return self.process.wait(COMMAND_SECONDS)


@contextlib.contextmanager
def terminal(*words: str | Path) -> Iterator[Terminal]:
    """Run a bundlefs command with a terminal of its own as stdin, stdout and stderr.

    The last of `words` is the mountpoint.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (25, 200))
    try:
        process = subprocess.Popen(
            [tool("setsid"), "--ctty", *BUNDLEFS, *map(str, words)],
            env=settings({"TERM": "xterm"}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            text=True,
        )
    finally:
        os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        if process.returncode:
            detach(Path(words[-1]))
