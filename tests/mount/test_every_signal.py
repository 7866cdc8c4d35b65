"""No signal leaves a dead mount, a half file or a traceback behind, whenever it comes.

SIGKILL aside, and those of a program that is broken.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bundlefs.base.signals import ENDING, REPORT
from tests.mount.commands import eventually
from tests.support import images
from tests.support.mounts import BUNDLEFS, bundlefs, detach, is_mounted, read_status, settings
from tests.support.processes import ended

MIB = images.MIB
SOON = 30.0
MOMENTS = 5
ANY = sorted(ENDING - {REPORT} - set(range(signal.SIGRTMIN + 1, signal.SIGRTMAX)))
SOME = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGPWR,
    signal.SIGRTMIN,
)
SLOWLY = ("--level", "9", "--jobs", "1")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("image") / "disk", 25 * MIB)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image that takes minutes at level 9; the same words again take as long."""
    path = tmp_path_factory.mktemp("slow") / "disk"
    path.write_bytes(images.text(16 * MIB) * 25)
    return path


@contextlib.contextmanager
def command(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a bundlefs command, and see that nothing of it stays."""
    with subprocess.Popen(
        [*BUNDLEFS, *map(str, words)],
        env=settings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> number - 1 & 1)
    return False


def is_ours(process: subprocess.Popen[str]) -> bool:
    """Whether our code runs: what comes before is the interpreter's own."""
    return catches(process.pid, signal.SIGUSR2)


@pytest.mark.parametrize("number", ANY, ids=str)
def test_a_mount_ends_by_it(number: int, image: Path, mountpoint: Path) -> None:
    with command("mount", "-f", image, mountpoint) as process:
        assert eventually((mountpoint / ".bundlefs/status.json").exists)
        assert (mountpoint / "image.part.00").stat().st_size == 10 * MIB
        process.send_signal(number)
        _, said = process.communicate(timeout=SOON)
    assert not is_mounted(mountpoint)
    assert (process.returncode, "Traceback" in said) == (0, False), said
    assert ": unmounting" in said


def test_a_mount_in_the_background_ends_by_it(image: Path, mountpoint: Path) -> None:
    for number in (signal.SIGQUIT, signal.SIGUSR2, signal.SIGALRM):
        with command("mount", image, mountpoint) as process:
            assert process.wait(SOON) == 0
        pid = int(read_status(mountpoint)["pid"])
        os.kill(pid, number)
        assert eventually(lambda: not is_mounted(mountpoint))
        assert ended(pid, SOON)


@pytest.mark.parametrize("how", ["-f", "background"])
@pytest.mark.parametrize("number", SOME, ids=str)
def test_while_it_starts(how: str, number: int, image: Path, mountpoint: Path) -> None:
    words = ["-f"] if how == "-f" else []
    for moment in range(MOMENTS):
        with command("mount", "--state", "none", *words, image, mountpoint) as process:
            assert eventually(partial(is_ours, process))
            time.sleep(moment * 0.12)
            process.send_signal(number)
            if how == "-f" and number == REPORT and reports(process, mountpoint):
                process.terminate()
            _, said = process.communicate(timeout=SOON)
        if process.returncode == 0 and not words:
            bundlefs("umount", mountpoint)
        assert not is_mounted(mountpoint)
        assert process.returncode in (0, 1, 128 + number, -number), (process.returncode, said)
        assert "Traceback" not in said


def reports(process: subprocess.Popen[str], mountpoint: Path) -> bool:
    """Whether a mount took a signal as the wish for a report: it is there then."""
    return eventually(lambda: process.poll() is not None or is_up(mountpoint)) and (
        process.poll() is None
    )


def is_up(mountpoint: Path) -> bool:
    return is_mounted(mountpoint) and (mountpoint / ".bundlefs/status.json").exists()


def run_umount(mountpoint: Path) -> bool:
    return subprocess.run(["umount", mountpoint], check=False).returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, "umount"], ids=str)
@pytest.mark.parametrize("number", SOME, ids=str)
def test_while_it_ends(number: int, how: int | str, image: Path, mountpoint: Path) -> None:
    for moment in range(2):
        with command("mount", "-f", image, mountpoint) as process:
            assert eventually(lambda: is_up(mountpoint), SOON), process.poll()
            if isinstance(how, str):
                # Its own first look may not be over, and others list all mounts of this host.
                assert eventually(lambda: run_umount(mountpoint))
            else:
                process.send_signal(how)
            deadline = time.monotonic() + SOON
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(number)
                time.sleep(0.001 * moment)
            _, said = process.communicate(timeout=SOON)
        assert not is_mounted(mountpoint)
        assert "Traceback" not in said
        assert process.returncode == 0, said


@pytest.mark.parametrize("number", SOME, ids=str)
def test_a_bundle_leaves_no_half_file(number: int, slow: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    with command("bundle", "--state", "none", *SLOWLY, slow, dest) as process:
        assert eventually(lambda: dest.exists() and bool(list(dest.glob(".image.part*"))))
        process.send_signal(number)
        _, said = process.communicate(timeout=SOON)
    assert (process.returncode, "Traceback" in said) == (128 + number, False), said
    assert not list(dest.glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT], ids=str)
def test_while_modules_load(number: int, image: Path, tmp_path: Path) -> None:
    for moment in range(MOMENTS):
        with command("bundle", "--state", "none", image, tmp_path / str(moment)) as process:
            assert eventually(partial(is_ours, process))
            time.sleep(moment * 0.08)
            process.send_signal(number)
            _, said = process.communicate(timeout=SOON)
        # At the very end, the interpreter has let go of our handlers.
        assert process.returncode in (0, 128 + number, -number)
        assert "Traceback" not in said
        assert "Exception ignored" not in said


def test_a_caller_that_ignores_a_hangup_is_obeyed(image: Path, mountpoint: Path) -> None:
    """As nohup(1) does."""
    words = ["nohup", *BUNDLEFS, "mount", "-f", str(image), str(mountpoint)]
    with subprocess.Popen(
        words,
        env=settings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert eventually(lambda: is_up(mountpoint))
            process.send_signal(signal.SIGHUP)
            assert (mountpoint / "image.part.00").stat().st_size == 10 * MIB
            process.terminate()
            assert process.wait(SOON) == 0
            assert not is_mounted(mountpoint)
        finally:
            process.kill()
            detach(mountpoint)
