"""contrib/troubleshooting.md quotes what is really printed, and its remedies help.

Every line of a code block there that bundlefs, the kernel or a stock tool prints on this machine
is made to appear here: a function for each, found by the line. A quoted line without one fails
`test_each_quoted_line_is_accounted_for`. What only AWS prints is listed by its first words.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.broken_disk import broken_disk
from tests.mount.commands import (
    AS_USER,
    POWERLESS,
    as_user,
    attempt,
    eventually,
    in_namespace,
    refusal,
    users_folder,
)
from tests.support import images
from tests.support.mounts import BUNDLEFS, bundlefs, detach, is_mounted, mounted
from tests.support.processes import ended, open_files
from tests.support.tools import clean_env, run, tool

MIB = images.MIB
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

Producer = Callable[[Path], str]
PRODUCERS: dict[str, Producer] = {}


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


def prints(*beginnings: str) -> Callable[[Producer], Producer]:
    """Declare that a function makes the quoted lines appear that begin so."""

    def declare(producer: Producer) -> Producer:
        PRODUCERS.update(dict.fromkeys(beginnings, producer))
        return producer

    return declare


def producer_of(line: str) -> Producer | None:
    found = [make for beginning, make in PRODUCERS.items() if line.startswith(beginning)]
    return found[0] if len(found) == 1 else None


def said(*words: str | Path) -> str:
    """Run a stock tool that fails; gives its stderr."""
    command = [tool(str(words[0])), *map(str, words[1:])]
    env = clean_env(Path.home(), LC_ALL="C")
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode, done.stderr
    return done.stderr.decode()


def disk(folder: Path) -> tuple[Path, Path]:
    """Make an image of two parts and a mountpoint."""
    (folder / "mnt").mkdir(exist_ok=True)
    return images.random_image(folder / "disk", 11 * MIB), folder / "mnt"


# The mount


@prints(
    "ls: cannot open directory 'MOUNTPOINT': Transport",
    "bundlefs: no bundlefs answers at",
    "bundlefs: mountpoint MOUNTPOINT: Transport",
)
def a_killed_mount(folder: Path) -> str:
    image, mountpoint = disk(folder)
    with mounted(image, mountpoint) as mount:
        os.kill(mount.pid, signal.SIGKILL)
        assert ended(mount.pid, 10)
        # While the kernel takes the connection down, the error is another.
        assert eventually(lambda: "endpoint" in said("ls", mountpoint))
        shown = said("ls", mountpoint)
        shown += attempt("status", mountpoint).err + attempt("mount", image, mountpoint).err
        assert bundlefs("umount", mountpoint) == "", "the remedy"
        assert not is_mounted(mountpoint)
    return shown


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


@prints("bundlefs: FUSE is not there")
def no_device(folder: Path) -> str:
    image, mountpoint = disk(folder)
    program = in_namespace('mount -t tmpfs none /dev; exec "$@"', *BUNDLEFS)
    line = refusal("mount", image, mountpoint, code=1, program=program)
    # The remedy that needs no device.
    ending = attempt("bundle", image, folder / "dest", program=program)
    assert (ending.code, len(list(folder.glob("dest/*.part.*")))) == (0, 2), ending
    return line


@prints("bundlefs: no permission to use FUSE")
def a_closed_device(folder: Path) -> str:
    image, mountpoint = disk(folder)
    closed = folder / "fuse"
    closed.touch(mode=0)
    hide = f'mount --bind "{closed}" /dev/fuse; exec "$@"'
    program = in_namespace(hide, *POWERLESS[-3:], *BUNDLEFS)
    return refusal("mount", image, mountpoint, code=1, program=program)


@prints("bundlefs: fusermount3 is not there")
def no_fusermount(folder: Path) -> str:
    with users_folder() as theirs:
        image = images.text_image(theirs / "disk", 4096)
        program = as_user(f'PATH={folder}; exec "$@"', *AS_USER, scratch=folder)
        return refusal("mount", image, theirs / "mnt", code=1, program=program)


ALLOW = """
printf '%s\\n' "$1" >"$2/fuse.conf"
mount --bind "$2/fuse.conf" /etc/fuse.conf
shift 2
exec "$@"
"""


@prints("fusermount3: option allow_other", "bundlefs: FUSE refused to mount")
def a_user_who_may_not_share(folder: Path) -> str:
    with users_folder() as theirs, tempfile.TemporaryDirectory() as scratch:
        image = images.text_image(theirs / "disk", 4096)
        words = ("--allow-other", "--state", "none", image, theirs / "mnt")
        program = as_user(ALLOW, "# nothing", str(folder), *AS_USER, scratch=Path(scratch))
        refused = attempt("mount", *words, program=program)
        remedy = as_user(ALLOW, "user_allow_other", str(folder), *AS_USER, scratch=Path(scratch))
        taken = attempt("mount", *words, program=remedy)
        for pid in taken.processes():
            os.kill(pid, signal.SIGTERM)
            assert ended(pid, 10)
    assert refused.code == 1
    assert (taken.code, taken.err) == (0, "")
    return refused.err


LOOK = 'user="$1"; shift; "$@"; ls "$user" || true; cd /; fusermount3 -u "$user"'


@prints("ls: cannot access 'MOUNTPOINT': Permission denied")
def root_at_a_users_mount(folder: Path) -> str:
    with users_folder() as theirs:
        image = images.text_image(theirs / "disk", 4096)
        mountpoint = theirs / "mnt"
        program = as_user(LOOK, mountpoint, *AS_USER, scratch=folder)
        ending = attempt("mount", "--state", "none", image, mountpoint, program=program)
        assert not is_mounted(mountpoint)
    return ending.err


@prints("bundlefs: mountpoint MOUNTPOINT is not empty")
def a_full_mountpoint(folder: Path) -> str:
    image, mountpoint = disk(folder)
    (mountpoint / "precious").touch()
    return refusal("mount", image, mountpoint, code=1)


@prints("bundlefs: cannot unmount MOUNTPOINT: DETAILS")
def a_busy_mount(folder: Path) -> str:
    image, mountpoint = disk(folder)
    with mounted(image, mountpoint) as mount:
        with mount.manifest().open("rb"):
            line = attempt("umount", mountpoint).err
            bundlefs("umount", "--lazy", mountpoint)
            assert not is_mounted(mountpoint), "the remedy"
        assert ended(mount.pid, 20)
    return line


NO_MTAB = """
mkdir "$1/etc" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" none /etc
rm -f /etc/mtab
image=$2 mountpoint=$3
shift 3
"$@" mount --state none "$image" "$mountpoint"
! "$@" umount "$mountpoint" || exit 9
ln -s ../proc/self/mounts /etc/mtab
exec "$@" umount "$mountpoint"
"""


@prints("bundlefs: cannot unmount MOUNTPOINT: /usr/bin/fusermount3")
def no_mtab(folder: Path) -> str:
    with users_folder() as theirs:
        image = images.text_image(theirs / "disk", 4096)
        arguments = (folder, image, theirs / "mnt", *AS_USER)
        ending = attempt(program=as_user(NO_MTAB, *arguments, scratch=folder))
    assert ending.code == 0, "the remedy"
    return ending.err


# Reading


@prints("cat: MOUNTPOINT/image.part.00: Stale", "error     image IMAGE was changed")
def a_changed_image(folder: Path) -> str:
    image, mountpoint = disk(folder)
    with mounted(image, mountpoint) as mount:
        os.utime(image, ns=(0, 0))
        shown = said("cat", mount.path / "image.part.00")
        status = attempt("status", mountpoint)
        assert status.code == 1
    return shown + status.out


@prints("bundlefs: WARNING: IMAGE: a new bundle")
def a_mount_after_a_change(folder: Path) -> str:
    image, mountpoint = disk(folder)
    with mounted(image, mountpoint):
        pass
    os.utime(image, ns=(0, 0))
    ending = attempt("mount", image, mountpoint)
    bundlefs("umount", mountpoint)
    assert ending.code == 0
    return ending.err


COPIES = """
cp -r --no-preserve=mode "$1" "$2"
rm -r "$2"
cp -r "$1" "$2"
rm -r "$2" 2>&1 || chmod -R u+w "$2"
rm -r "$2"
"""


@prints("rm: cannot remove 'DIR/image.part.00'")
def a_copy_with_the_modes_of_the_mount(folder: Path) -> str:
    image, mountpoint = disk(folder)
    with mounted(image, mountpoint):
        command = (*POWERLESS, tool("sh"), "-ec", COPIES, "sh", mountpoint, folder / "copy")
        env = clean_env(folder, LC_ALL="C")
        return run([str(word) for word in command], env=env).decode()


@prints("cat: MOUNTPOINT/image.part.01: Input/output error")
def a_worn_out_disk(folder: Path) -> str:
    (folder / "mnt").mkdir()
    options = ("--level", "0", "--jobs", "1", "--state", "none")
    with (
        broken_disk(folder / "disks", 25 * MIB, 15 * MIB) as image,
        mounted(image, folder / "mnt", *options) as mount,
    ):
        assert len((mount.path / "image.part.00").read_bytes()) == 10 * MIB
        shown = said("cat", mount.path / "image.part.01")
        assert "Input/output error" in attempt("status", mount.path).out
    return shown


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


# The state and the cache


@prints("bundlefs: state file FILE is in use")
def a_second_mount(folder: Path) -> str:
    image, mountpoint = disk(folder)
    (folder / "other").mkdir()
    with mounted(image, mountpoint):
        return refusal("mount", image, folder / "other", code=1)


FULL = """
mount -t tmpfs -o size=16k none "$1"
image=$2 full=$1 mountpoint=$3
shift 3
"$@" mount --state "$full/state" --cache-dir "$full" --cache-size 0 --level 0 \
    --log-file "$full.log" "$image" "$mountpoint"
cat "$mountpoint/image.part.00" >/dev/null
dd if=/dev/zero of="$full/rest" bs=1k 2>/dev/null || true
ls "$mountpoint" >/dev/null
"$@" umount "$mountpoint"
cat "$full.log" >&2
dd if=/dev/zero of="$full/cache" bs=1k 2>/dev/null || true
exec "$@" mount --state "$full/another" "$image" "$mountpoint"
"""


@prints(
    "bundlefs: cannot write the state file",
    "WARNING: cannot save to",
    "WARNING: block cache in",
)
def a_full_disk(folder: Path) -> str:
    image, mountpoint = disk(folder)
    (folder / "full").mkdir()
    script = in_namespace(FULL, folder / "full", image, mountpoint)
    ending = attempt(program=(*script, *BUNDLEFS))
    assert (ending.code, ending.processes()) == (1, [])
    return ending.err


@prints("bundlefs: cannot make the folder")
def nowhere_for_the_state(folder: Path) -> str:
    image, mountpoint = disk(folder)
    (folder / "file").touch()
    line = refusal("mount", "--state", folder / "file/new/state", image, mountpoint, code=1)
    with mounted(image, mountpoint, env={"XDG_STATE_HOME": str(folder / "home")}):
        assert list(folder.glob("home/bundlefs/*.state")), "the remedy"
    return line


# Installing


@prints("mounting needs the Python package pyfuse3")
def no_pyfuse3(folder: Path) -> str:
    image, mountpoint = disk(folder)
    program = (sys.executable, "-c", WITHOUT_PYFUSE3)
    return attempt("mount", image, mountpoint, program=program).err


WITHOUT_PYFUSE3 = """
import sys
from bundlefs.cli import main

sys.modules["pyfuse3"] = None
sys.exit(main())
"""


# EC2


@prints("bundlefs: region 'REGION'")
def a_region_without_a_key(folder: Path) -> str:
    image, mountpoint = disk(folder)
    return refusal("mount", "--region", "me-south-1", image, mountpoint, code=2)


@prints("bundlefs: warning: IMAGE has 10.0 GiB")
def a_large_image(folder: Path) -> str:
    image = images.sparse_image(folder / "large", (10 << 30) + 1, {})
    (folder / "mnt").mkdir()
    ending = attempt("mount", image, folder / "mnt")
    bundlefs("umount", folder / "mnt")
    return ending.err


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
