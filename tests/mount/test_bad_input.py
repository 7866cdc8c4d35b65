"""What a user gets wrong: one line that says so, the right exit code, and nothing left behind."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.commands import (
    AS_USER,
    POWERLESS,
    as_user,
    assert_nothing_left,
    attempt,
    in_namespace,
    mounts_at,
    refusal,
    users_folder,
)
from tests.support import images
from tests.support.mounts import BUNDLEFS, bundlefs, is_mounted, mounted
from tests.support.processes import ended

GIB = 1 << 30
WHERE_TO_FIND_IT = "`aws sts get-caller-identity"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 4096)


# The image


def an_empty_file(path: Path) -> None:
    path.touch()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (nothing, "no image", "check the path"),
        (an_empty_file, "is empty (0 bytes)", "give one with a file system"),
        (a_fifo, "is a FIFO", "give a regular file or a block device"),
    ],
)
def test_no_use_as_an_image(
    make: Callable[[Path], None], wrong: str, remedy: str, tmp_path: Path, mountpoint: Path
) -> None:
    make(tmp_path / "disk")
    line = refusal("mount", tmp_path / "disk", mountpoint, code=1)
    assert wrong in line
    assert str(tmp_path / "disk") in line
    assert remedy in line


def test_no_permission_to_read_the_image(image: Path, mountpoint: Path) -> None:
    image.chmod(0)
    line = refusal("mount", image, mountpoint, code=1, program=(*POWERLESS, *BUNDLEFS))
    assert line.startswith(f"bundlefs: no permission to read image {image}: ")
    assert "run as a user who may, or change its mode" in line


def test_a_large_image_is_warned_of(tmp_path: Path, mountpoint: Path) -> None:
    image = images.sparse_image(tmp_path / "disk", 10 * GIB + 512, {})
    warned = attempt("mount", image, mountpoint)
    bundlefs("umount", mountpoint)
    silenced = attempt("mount", "--no-size-limit", image, mountpoint)
    bundlefs("umount", mountpoint)
    assert (warned.code, warned.out) == (0, "")
    assert warned.err == (
        f"bundlefs: warning: {image} has 10.0 GiB; EC2 takes root images of at most 10 GiB"
        " (--no-size-limit silences this)\n"
    )
    assert (silenced.code, silenced.out, silenced.err) == (0, "", "")


def test_an_image_of_ten_gib_is_not_warned_of(tmp_path: Path, mountpoint: Path) -> None:
    image = images.sparse_image(tmp_path / "disk", 10 * GIB, {})
    ending = attempt("mount", image, mountpoint)
    bundlefs("umount", mountpoint)
    assert (ending.code, ending.err) == (0, "")


# The mountpoint


def a_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").touch()


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (nothing, "No such file or directory", "make it with mkdir"),
        (a_full_folder, "is not empty ('precious' is in it)", "choose another"),
        (an_empty_file, "Not a directory", "choose an empty folder"),
    ],
)
def test_no_use_as_a_mountpoint(
    make: Callable[[Path], None], wrong: str, remedy: str, image: Path, tmp_path: Path
) -> None:
    make(tmp_path / "there")
    line = refusal("mount", image, tmp_path / "there", code=1)
    assert line.startswith(f"bundlefs: mountpoint {tmp_path / 'there'}")
    assert wrong in line
    assert remedy in line


def test_already_a_mount(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint):
        line = refusal("mount", "--prefix", "other", image, mountpoint, code=1)
    assert line.startswith(f"bundlefs: mountpoint {mountpoint} is already a mount; ")


def test_a_dead_mount(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint) as mount:
        os.kill(mount.pid, signal.SIGKILL)
        assert ended(mount.pid, 10)
        line = refusal("mount", image, mountpoint, code=1)
        status = refusal("status", mountpoint, code=1)
        assert is_mounted(mountpoint)
        assert bundlefs("umount", mountpoint) == ""
        assert not is_mounted(mountpoint)
    assert line.endswith(f"a dead mount? try: bundlefs umount {mountpoint}")
    assert status.endswith(f"its process is gone; run: bundlefs umount {mountpoint}")
    with mounted(image, mountpoint) as again:
        assert [part.name for part in again.parts()] == ["image.part.00"]


# FUSE


def test_no_fuse(image: Path, mountpoint: Path) -> None:
    program = in_namespace('mount -t tmpfs none /dev; exec "$@"', *BUNDLEFS)
    line = refusal("mount", image, mountpoint, code=1, program=program)
    assert line.startswith(
        "bundlefs: FUSE is not there (/dev/fuse is missing): try `modprobe fuse`"
    )
    assert "--device /dev/fuse" in line


def test_no_permission_for_fuse(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    closed = tmp_path / "fuse"
    closed.touch(mode=0)
    hide = f'mount --bind "{closed}" /dev/fuse; exec "$@"'
    powerless = POWERLESS[-3:]
    program = in_namespace(hide, *powerless, *BUNDLEFS)
    line = refusal("mount", image, mountpoint, code=1, program=program)
    assert line.startswith("bundlefs: no permission to use FUSE: /dev/fuse is not open to you; ")


def test_no_fusermount(tmp_path: Path) -> None:
    with users_folder() as folder:
        image = images.text_image(folder / "disk", 4096)
        bare = f'PATH={tmp_path}; exec "$@"'
        program = as_user(bare, *AS_USER, scratch=tmp_path)
        line = refusal("mount", image, folder / "mnt", code=1, program=program)
    assert line == "bundlefs: fusermount3 is not there: install the package fuse3"


def test_an_unknown_fuse_option(image: Path, mountpoint: Path) -> None:
    program = (*BUNDLEFS, "mount", "-o", "nonsense,ro")
    line = refusal(image, mountpoint, code=2, program=program)
    assert line == "bundlefs: unknown mount option 'nonsense'; `bundlefs mount --help` has all"


def test_what_fuse_refuses(image: Path, mountpoint: Path) -> None:
    program = in_namespace('mount --bind /dev/null /dev/fuse; exec "$@"', *BUNDLEFS)
    ending = attempt("mount", "-o", "noatime", image, mountpoint, program=program)
    *libfuses, ours = ending.err.splitlines()
    assert (ending.code, ending.out) == (1, "")
    assert libfuses
    assert ours == (
        f"bundlefs: FUSE refused to mount on {mountpoint} (options: noatime); see the line before"
    )
    assert mounts_at(mountpoint) == 0
    assert_nothing_left(ending)


# The account and the prefix


def test_no_account(image: Path, mountpoint: Path) -> None:
    line = refusal("mount", image, mountpoint, code=2, env={"BUNDLEFS_ACCOUNT": ""})
    assert line.startswith("bundlefs: no account: give --account or set BUNDLEFS_ACCOUNT")
    assert WHERE_TO_FIND_IT in line


@pytest.mark.parametrize("account", ["12345678901", "1234567890123", "12345678901x", "me"])
def test_a_bad_account(account: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", "--account", account, image, mountpoint, code=2)
    assert f"the account {account!r} is not" in line
    assert WHERE_TO_FIND_IT in line


def test_a_bad_account_in_the_environment(image: Path, mountpoint: Path) -> None:
    line = refusal("mount", image, mountpoint, code=2, env={"BUNDLEFS_ACCOUNT": "12"})
    assert "the account '12' is not" in line


@pytest.mark.parametrize("prefix", ["", "a/b", "a\nb", "a\x1bb", ".hidden", "a\x7f"])
def test_a_bad_prefix(prefix: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", "--prefix", prefix, image, mountpoint, code=2)
    assert line.startswith(f"bundlefs: prefix {prefix!r}: ")
    assert "must not be empty, start with a dot, or have '/' or control characters" in line


def test_a_long_prefix(image: Path, mountpoint: Path) -> None:
    # 34 characters, 102 bytes
    line = refusal("mount", "--prefix", "€" * 34, image, mountpoint, code=2)
    assert "102 bytes; tar has room for 100" in line


# Other options


@pytest.mark.parametrize("level", ["10", "-1"])
def test_a_bad_level(level: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", "--level", level, image, mountpoint, code=2)
    assert line == f"bundlefs: --level {level}: levels go from 0 (stored) to 9 (smallest)"


@pytest.mark.parametrize("option", ["--cache-dir", "--log-file"])
def test_no_folder_for_a_file(option: str, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    line = refusal("mount", option, tmp_path / "none/there", image, mountpoint, code=2)
    assert f"{tmp_path}/none/there: No such file or directory" in line


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["-B", "ami"], "the block device mapping 'ami' is not VIRTUAL=DEVICE"),
        (["--type", "disk"], "'disk'"),
        (["--arch", "X 86"], "the architecture 'X 86'"),
        (["--kernel", "a\nb"], "kernel id"),
        (["--kernel-name", "vmlinuz"], "kernel"),
    ],
)
def test_bad_metadata(words: list[str], wrong: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", *words, image, mountpoint, code=2)
    assert wrong in line


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--jobs", "0"], "argument --jobs: '0' is not a whole number from 1 up"),
        (["--jobs", "many"], "argument --jobs: 'many' is not a whole number from 1 up"),
        (["--level", "high"], "argument --level: invalid int value: 'high'"),
        (["--cache-size", "rubbish"], "argument --cache-size: 'rubbish' is not a size"),
        (["--cache-size", "-1"], "argument --cache-size: '-1' is not a size"),
        (["--cache-size", "9" * 400], "is not a size"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--pref", "abbreviated"], "unrecognized arguments: --pref"),
        (["--account"], "argument --account: expected one argument"),
    ],
)
def test_what_argparse_refuses(words: list[str], wrong: str, image: Path, mountpoint: Path) -> None:
    ending = attempt("mount", image, mountpoint, *words)
    usage, *_, error = ending.err.splitlines()
    assert ending.code == 2
    assert usage.startswith("usage: bundlefs")
    assert error.startswith("bundlefs")
    assert ": error: " in error
    assert wrong in error
    assert mounts_at(mountpoint) == 0
    assert_nothing_left(ending)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "COMMAND"),
        (["mount"], "IMAGE, MOUNTPOINT"),
        (["mount", "disk"], "MOUNTPOINT"),
        (["umount"], "MOUNTPOINT"),
    ],
)
def test_missing_arguments(words: list[str], missing: str) -> None:
    ending = attempt(*words)
    assert ending.code == 2
    assert ending.err.endswith(f"error: the following arguments are required: {missing}\n")
