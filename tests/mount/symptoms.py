"""What contrib/troubleshooting.md quotes, made to happen, with the remedies that it has.

A function for each symptom gives what is printed on this machine, and is found by the line.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

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
from tests.support.mounts import BUNDLEFS, bundlefs, is_mounted, mounted
from tests.support.processes import ended
from tests.support.tools import clean_env, run, tool

MIB = images.MIB

Producer = Callable[[Path], str]
PRODUCERS: dict[str, Producer] = {}


def prints(*beginnings: str) -> Callable[[Producer], Producer]:
    """Declare that a function makes the quoted lines appear that begin so."""

    def declare(producer: Producer) -> Producer:
        PRODUCERS.update(dict.fromkeys(beginnings, producer))
        return producer

    return declare


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
