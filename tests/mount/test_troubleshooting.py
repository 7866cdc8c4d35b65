"""contrib/troubleshooting.md quotes what is really printed, and its remedies help.

Every line of a code block there that bundlefs, the kernel or a stock tool prints on this machine
is made to appear by a function of symptoms.py, found by the line. A quoted line without one fails
`test_each_quoted_line_is_accounted_for`. What only AWS prints is listed by its first words.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.commands import attempt, eventually
from tests.mount.symptoms import PRODUCERS, Producer, disk, said
from tests.support.mounts import BUNDLEFS, bundlefs, detach, is_mounted, mounted
from tests.support.processes import open_files
from tests.support.tools import clean_env, run, tool

PARTS = ["image.part.00", "image.part.01"]
DOCUMENT = (Path(__file__).parents[2] / "contrib/troubleshooting.md").read_text()
PLACEHOLDERS = (
    *("MOUNTPOINT", "IMAGE", "NAME", "DETAILS", "CHANGES", "FILE", "HOLDER", "DIR", "COUNT"),
    *("REASON", "REGION"),
)
# A command to type, a line of an AWS service, or of a machine that was upgraded.
NOT_FROM_HERE = (
    *("bundlefs status", "findmnt ", "An error occurred (", "NotImplemented: ", "StateReason: "),
    "libfuse3.so.3: ",
)
ONE_ROW = re.compile(r"^\| `([^`]+)`", re.MULTILINE)


def from_here() -> list[str]:
    """Return the lines of the document's code blocks that can appear on this machine.

    A block is indented by 4, within an item of a list by 6.
    """
    lines: list[str] = re.findall(r"^(?: {4}| {6})(?! )(.+)$", DOCUMENT, re.MULTILINE)
    return [line for line in lines if not line.startswith(NOT_FROM_HERE)]


def pattern(line: str) -> re.Pattern[str]:
    """Return what matches the line with anything in place of its words in capitals."""
    names = "|".join(PLACEHOLDERS)
    return re.compile(re.sub(rf"\b(?:{names})\b", lambda _: ".+", re.escape(line)))


def producer_of(line: str) -> Producer | None:
    found = [make for beginning, make in PRODUCERS.items() if line.startswith(beginning)]
    return found[0] if len(found) == 1 else None


# The mount


def test_auto_unmount_leaves_no_dead_mount(tmp_path: Path) -> None:
    image, mountpoint = disk(tmp_path)
    with mounted(image, mountpoint, "-o", "auto_unmount") as mount:
        os.kill(mount.pid, signal.SIGKILL)
        assert eventually(lambda: not is_mounted(mountpoint))
    with mounted(image, mountpoint) as again:
        assert len(again.parts()) == 2


def test_a_kill_releases_the_device_before_what_auto_unmount_waits_for(tmp_path: Path) -> None:
    """Else fusermount3 looks an instant too soon, and leaves a dead mount.

    The kernel releases files from the highest number down. What fusermount3 waits for is the
    first socket that the process has: libfuse makes it before there is an event loop.
    """
    image, mountpoint = disk(tmp_path)
    with mounted(image, mountpoint, "-o", "auto_unmount") as mount:
        files = open_files(mount.pid)
    sockets = {name: number for number, name in sorted(files.items()) if "socket:" in name}
    first = sockets[min(sockets, key=lambda name: int(name.strip("socket:[]")))]
    assert max(number for number, name in files.items() if name == "/dev/fuse") > first


# Reading


def test_some_dozens_of_open_files_are_enough(tmp_path: Path) -> None:
    image, mountpoint = disk(tmp_path)
    few = (tool("sh"), "-c", 'ulimit -n 40; exec "$@"', "sh", *BUNDLEFS)
    ending = attempt("mount", image, mountpoint, program=few)
    assert ending.code == 0, ending.err
    try:
        with ExitStack() as stack:
            files = [stack.enter_context((mountpoint / name).open("rb")) for name in PARTS * 40]
            assert {len(file.read(4096)) for file in files} == {4096}
    finally:
        bundlefs("umount", mountpoint)


# The document against all that


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Iterator[None]:
    """Unmount what a symptom that did not come as expected has left."""
    yield
    detach(tmp_path / "mnt")


def test_each_quoted_line_is_accounted_for() -> None:
    lines = from_here()
    assert len(lines) > 20
    assert [line for line in lines if producer_of(line) is None] == []
    needed = {producer_of(line) for line in lines}
    assert [make.__name__ for make in PRODUCERS.values() if make not in needed] == []


@pytest.mark.parametrize("make", dict.fromkeys(PRODUCERS.values()), ids=lambda make: make.__name__)
def test_what_is_quoted_is_what_is_printed(make: Producer, tmp_path: Path) -> None:
    shown = make(tmp_path)
    lines = [line for line in from_here() if producer_of(line) is make]
    assert lines
    for line in lines:
        assert pattern(line).search(shown), f"{line!r} is not in {shown!r}"


# The table of what to install


def row_with(text: str) -> str:
    """Return the one message of a table that has the text in it."""
    rows: list[str] = ONE_ROW.findall(DOCUMENT)
    [found] = [row for row in rows if text in row]
    return found


def test_the_messages_of_a_failing_build(tmp_path: Path) -> None:
    env = clean_env(tmp_path, PKG_CONFIG_LIBDIR=str(tmp_path), LC_ALL="C")
    command = [tool("pkg-config"), "--cflags", "fuse3"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert row_with("fuse3 was") in done.stderr
    source = tmp_path / "extension.c"
    source.write_text("#include <Python.h>\n")
    assert row_with("Python.h") in said("gcc", "-fsyntax-only", source)
    for name in ("pkg-config", "gcc"):
        with pytest.raises(FileNotFoundError) as caught:
            subprocess.run([name], env={"PATH": str(tmp_path)}, check=False)
        assert row_with(f"'{name}'").endswith(str(caught.value))


def test_the_packages_are_those_of_debian() -> None:
    """The column that can be looked up here: apt knows each of them."""
    table = DOCUMENT.partition("| Debian, Ubuntu |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| `[^`]+` \| `([^`]+)` \|", table, re.MULTILINE)
    names = {name for cell in cells for name in cell.split()}
    assert {"pkg-config", "libfuse3-dev", "gcc", "python3-dev", "pipx"} <= names
    assert names <= set(run(["apt-cache", "pkgnames"]).decode().split())
