"""The life of a mount: in the foreground or not, its log, its status, and every way to end it."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import (
    IMPATIENT,
    INTERRUPT,
    ROOT,
    assert_nothing_left,
    attempt,
    eventually,
    foreground,
    names,
    refusal,
    terminal,
)
from tests.mount.hanging_disk import hanging_disk
from tests.support import images
from tests.support.mounts import BUNDLEFS, Mount, bundlefs, is_mounted, mounted, read_status
from tests.support.processes import ended
from tests.support.tools import tool

MIB = images.MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.text_image(tmp_path_factory.mktemp("image") / "disk", 3 * MIB + 512)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that takes some seconds at level 9 with one job."""
    return images.text_image(tmp_path_factory.mktemp("slow") / "disk", 6 * MIB)


SLOWLY = ("--level", "9", "--jobs", "1")


@pytest.fixture
def mount(image: Path, mountpoint: Path) -> Iterator[Mount]:
    with mounted(image, mountpoint) as made:
        yield made


# In the foreground


def wait_ready(mountpoint: Path) -> None:
    """Wait until the mount answers: it is in the kernel's table a little before."""
    assert eventually(lambda: read_status(mountpoint)["pid"] > 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(number: signal.Signals, image: Path, mountpoint: Path) -> None:
    with foreground(image, mountpoint) as process:
        wait_ready(mountpoint)
        assert names(mountpoint)
        process.send_signal(number)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert not is_mounted(mountpoint)
    lines = log.splitlines()
    assert f"bundlefs: INFO: mounted on {mountpoint}" in lines
    assert f"bundlefs: INFO: {number.name}: unmounting" in lines


def test_a_pass_that_takes_long(slow: Path, mountpoint: Path, tmp_path: Path) -> None:
    """The foreground logs how far it is, and `status` draws a bar."""
    with (
        hanging_disk(tmp_path / "hangs", slow) as storage,
        storage.held(slow.stat().st_size),
        foreground(
            *("--state", "none", "--eager", storage.folder / "disk", mountpoint), program=IMPATIENT
        ) as process,
    ):
        wait_ready(mountpoint)
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        line = next(line for line in lines if "index pass" in line)
        shown = bundlefs("status", mountpoint)
        storage.release()
        assert next(line for line in lines if " is complete: " in line)
        bundlefs("umount", mountpoint)
        assert process.wait(30) == 0
    assert re.search(r"INFO: .*/disk: index pass, \d+ % of 6.0 MiB, \d+.\d MiB/s\n", line)
    assert "\r" not in line
    assert "phase     indexing: the index pass runs" in shown
    assert re.search(r"^ +[0-9]+%\|.*/6\.01M \[.*B/s\]$", shown, re.MULTILINE)


def test_the_foreground_shows_a_bar_on_a_terminal(slow: Path, mountpoint: Path) -> None:
    with terminal("mount", "-f", *SLOWLY, slow, mountpoint) as shell:
        shell.wait_for(f"mounted on {mountpoint}")
        listing = subprocess.Popen([tool("ls"), mountpoint], stdout=subprocess.DEVNULL)
        shell.wait_for("%|")
        shell.wait_for("B/s]")
        shell.wait_for(" is complete: ")
        assert listing.wait(30) == 0
        shell.type(INTERRUPT)
        assert shell.finish() == 0
    assert "Traceback" not in shell.shown
    assert not is_mounted(mountpoint)


def test_closing_the_terminal_unmounts(image: Path, mountpoint: Path) -> None:
    with terminal("mount", "-f", image, mountpoint) as shell:
        shell.wait_for(f"mounted on {mountpoint}")
        shell.hang_up()
        assert shell.process.wait(30) == 0
    assert not is_mounted(mountpoint)


def test_a_signal_answers_those_who_wait(slow: Path, mountpoint: Path) -> None:
    answers: list[object] = []

    def list_it() -> None:
        try:
            answers.append(names(mountpoint))
        except OSError as error:
            answers.append(error)

    with foreground(*SLOWLY, slow, mountpoint) as process:
        wait_ready(mountpoint)
        waiting = threading.Thread(target=list_it)
        waiting.start()
        assert eventually(lambda: read_status(mountpoint)["phase"] == "indexing")
        process.terminate()
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        waiting.join(10)
    assert not is_mounted(mountpoint)
    [answer] = answers
    assert isinstance(answer, OSError)
    assert "Traceback" not in log


def test_a_signal_ends_a_mount_in_use(image: Path, mountpoint: Path) -> None:
    with foreground(image, mountpoint) as process:
        wait_ready(mountpoint)
        with (mountpoint / "image.part.00").open("rb"):
            process.terminate()
            process.communicate(timeout=30)
            assert process.returncode == 0
            assert not is_mounted(mountpoint)


def test_nobody_reads_the_log(image: Path, mountpoint: Path) -> None:
    """As in `bundlefs mount -f ... 2>&1 | head -1`: the mount goes on."""
    with foreground(image, mountpoint) as process:
        wait_ready(mountpoint)
        assert process.stderr
        process.stderr.close()
        assert (mountpoint / "image.part.00").read_bytes()
        assert names(mountpoint) == ["image.manifest.xml", "image.part.00"]
        process.terminate()
        assert process.wait(30) == 0
        assert not is_mounted(mountpoint)


def test_the_log_file(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ending = attempt("mount", "--log-file", log, image, mountpoint)
    assert (ending.code, ending.out, ending.err) == (0, "", "")
    assert names(mountpoint)
    bundlefs("umount", mountpoint)
    text = log.read_text()
    assert f"INFO: mounted on {mountpoint}" in text
    assert f"INFO: the bundle of {image} is complete: " in text
    assert "WARNING" not in text
    assert "ERROR" not in text


# In the background


def test_the_mount_is_ready_when_the_command_returns(image: Path, mountpoint: Path) -> None:
    ending = attempt("mount", image, mountpoint)
    try:
        assert (ending.code, ending.out, ending.err) == (0, "", "")
        status = json.loads((mountpoint / ".bundlefs/status.json").read_text())
        assert status["mountpoint"] == str(mountpoint)
        # What sets the kernel's limits of the mount is a program, and done soon.
        assert eventually(lambda: ending.processes() == [status["pid"]])
        # A daemon holds no terminal, no folder and no pipe of whoever started it.
        process = Path(f"/proc/{status['pid']}")
        assert (process / "cwd").readlink() == Path("/")
        standard = {(process / f"fd/{number}").readlink() for number in range(3)}
        assert standard == {Path("/dev/null")}
        assert os.getsid(status["pid"]) == status["pid"]
    finally:
        bundlefs("umount", mountpoint)
    assert_nothing_left(ending)


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closing: str, image: Path, mountpoint: Path) -> None:
    """As some cron daemons start it: no file of the mount may be taken for a stream."""
    program = (tool("sh"), "-c", f'exec "$@" {closing}', "sh", *BUNDLEFS)
    assert attempt("mount", image, mountpoint, program=program).code == 0
    try:
        assert names(mountpoint) == ["image.manifest.xml", "image.part.00"]
        assert attempt("status", mountpoint, program=program).code == 0
    finally:
        bundlefs("umount", mountpoint)


def test_sigterm_ends_the_daemon(image: Path, mountpoint: Path) -> None:
    attempt("mount", image, mountpoint)
    pid = read_status(mountpoint)["pid"]
    os.kill(pid, signal.SIGTERM)
    assert ended(pid, 10)
    assert not is_mounted(mountpoint)


# umount


def test_umount_waits_for_the_process(mount: Mount) -> None:
    assert bundlefs("umount", mount.path) == ""
    assert ended(mount.pid, 0)
    assert not is_mounted(mount.path)


def test_umount_through_a_link_and_a_relative_path(
    image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(mountpoint)
    with mounted(image, mountpoint) as mount:
        bundlefs("umount", tmp_path / "link")
        assert not is_mounted(mount.path)
    with mounted(image, mountpoint) as mount:
        bundlefs("umount", os.path.relpath(mountpoint))
        assert not is_mounted(mount.path)


def test_umount_of_a_mount_in_use(mount: Mount) -> None:
    with (mount.path / "image.part.00").open("rb") as stream:
        line = refusal("umount", mount.path, code=1)
        assert line.startswith(f"bundlefs: cannot unmount {mount.path}: ")
        assert "busy" in line
        assert f"`fuser -vm {mount.path}` shows who uses it" in line
        assert "--lazy" in line
        assert len(stream.read()) > 0


def test_lazy_umount_of_a_mount_in_use(mount: Mount) -> None:
    with (mount.path / "image.part.00").open("rb") as stream:
        assert bundlefs("umount", "--lazy", mount.path) == ""
        assert not is_mounted(mount.path)
        assert not ended(mount.pid, 0)
        # Whoever has a file open may read on.
        assert len(stream.read()) > 0
    assert ended(mount.pid, 10)


def test_umount_of_something_else(tmp_path: Path) -> None:
    line = refusal("umount", tmp_path, code=1)
    assert line == (
        f"bundlefs: {tmp_path} is not a bundlefs mount; `findmnt -t fuse.bundlefs` lists them"
    )
    assert "/proc is not a bundlefs mount" in refusal("umount", "/proc", code=1)
    assert "is not a bundlefs mount" in refusal("umount", tmp_path / "none", code=1)


def test_umount_without_fusermount(mount: Mount, tmp_path: Path) -> None:
    """Root can unmount by itself; anybody else hears what is missing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "umount").symlink_to(tool("umount"))
    ending = attempt("umount", mount.path, env={"PATH": str(tools)})
    missing = "bundlefs: fusermount3 is not there: install the package fuse3\n"
    assert (ending.code, ending.err) == ((0, "") if ROOT else (1, missing))
    assert is_mounted(mount.path) == (not ROOT)


# status


def test_status_for_a_person(mount: Mount) -> None:
    lines = bundlefs("status", mount.path).splitlines()
    assert lines[0] == f"image     {mount.image}, 3.0 MiB"
    assert lines[1].startswith("phase     idle: ")
    assert lines[-1].endswith(f"by process {mount.pid}")
    sealed = sum(part.stat().st_size for part in mount.parts())
    lines = bundlefs("status", mount.path).splitlines()
    assert lines[1] == "phase     complete: all parts are known"
    assert lines[2] == f"bundle    1 parts made, {sealed / 1024:.1f} KiB sealed"
    assert lines[3] == "read      3.0 MiB of the image"


def test_status_as_json(mount: Mount) -> None:
    assert mount.parts()
    status = json.loads(bundlefs("status", "--json", mount.path))
    live = mount.status()
    changing = {"seconds"}
    assert {key: status[key] for key in live if key not in changing} == {
        key: live[key] for key in live if key not in changing
    }
    assert (status["phase"], status["error"]) == ("complete", None)
    assert status["image_size"] == status["image_bytes_read"] == mount.image.stat().st_size
    assert status["sealed_bytes"] == sum(part.stat().st_size for part in mount.parts())


def test_status_of_something_else(tmp_path: Path) -> None:
    line = refusal("status", tmp_path, code=1)
    assert line == (
        f"bundlefs: no bundlefs answers at {tmp_path} (No such file or directory);"
        " `findmnt -t fuse.bundlefs` lists the mounts"
    )
