"""What a service manager sees of a mount: its notify socket, its journal, its signals."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import attempt, ending, eventually, names, refusal
from tests.support import images
from tests.support.mounts import (
    BUNDLEFS,
    bundlefs,
    detach,
    is_mounted,
    mounted,
    read_status,
    settings,
)
from tests.support.processes import ended


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 25 * images.MIB)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    detach(folder)


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Listen as a service manager does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        listening.settimeout(20)
        yield listening


def wait_for(listening: socket.socket, pattern: str) -> str:
    """Read messages until one matches; gives it."""
    while True:
        message = listening.recv(4096).decode()
        if re.search(pattern, message):
            return message


@contextlib.contextmanager
def service(
    image: Path, mountpoint: Path, log: Path, *options: str, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a mount in the foreground as a service manager does; stderr goes to `log`."""
    with log.open("wb") as out:
        about = os.fstat(out.fileno())
        stream = {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}
        process = subprocess.Popen(
            [*BUNDLEFS, "mount", "-f", *options, str(image), str(mountpoint)],
            env=settings(stream | env),
            stdin=subprocess.DEVNULL,
            stderr=out,
        )
        with ending(process, mountpoint):  # type: ignore[arg-type]  # it reads no stream here
            yield process


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_notify_socket(kind: str, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@bundlefs-test-{os.getpid()}"
    log = tmp_path / "log"
    with (
        manager(address) as heard,
        service(image, mountpoint, log, NOTIFY_SOCKET=address) as process,
    ):
        ready = wait_for(heard, "READY=1")
        assert is_mounted(mountpoint)
        assert f"MAINPID={process.pid}" in ready
        assert len(names(mountpoint)) == 4
        assert wait_for(heard, "complete") == f"STATUS=complete: {image}, 3 parts made"
        process.terminate()
        wait_for(heard, "STOPPING=1")
        assert process.wait(20) == 0
    assert not is_mounted(mountpoint)


def test_no_ready_without_a_mount(mountpoint: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as heard:
        program = (*BUNDLEFS, "mount", "-f")
        env = {"NOTIFY_SOCKET": address}
        refusal(tmp_path / "none", mountpoint, code=1, program=program, env=env)
        heard.settimeout(0)
        with pytest.raises(BlockingIOError):
            heard.recv(4096)


def test_the_watchdog(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with (
        manager(address) as heard,
        service(image, mountpoint, tmp_path / "log", **env) as process,
    ):
        for _ in range(3):
            wait_for(heard, "^WATCHDOG=1$")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            time.sleep(0.5)
            heard.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while heard.recv(4096):
                    pass
            heard.settimeout(1.2)
            with pytest.raises(TimeoutError):
                heard.recv(4096)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        heard.settimeout(20)
        wait_for(heard, "^WATCHDOG=1$")


def test_anothers_watchdog_is_not_fed(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
    with manager(address) as heard, service(image, mountpoint, tmp_path / "log", **env):
        wait_for(heard, "READY=1")
        heard.settimeout(1)
        with pytest.raises(TimeoutError):
            wait_for(heard, "WATCHDOG")


def test_the_journal_gets_priorities(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with service(image, mountpoint, log) as process:
        assert eventually(lambda: f"<6>mounted on {mountpoint}" in log.read_text())
        gone = pytest.raises(OSError, match="not connected")
        with gone, (mountpoint / "image.part.00").open("rb") as stream:
            process.terminate()
            assert process.wait(20) == 0
            stream.read()
    lines = log.read_text().splitlines()
    assert all(re.match(r"<[3-7]>", line) for line in lines)
    [busy] = [line for line in lines if "is in use" in line]
    assert busy.startswith(f"<4>{mountpoint} is in use (")
    assert "it is detached" in busy
    assert not is_mounted(mountpoint)


def test_no_word_of_use_where_nobody_is(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with service(image, mountpoint, log) as process:
        assert eventually(lambda: "mounted on" in log.read_text())
        process.terminate()
        assert process.wait(20) == 0
    assert "in use" not in log.read_text()


def test_json(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with mounted(image, mountpoint, "--log-file", log, "--log-format", "json", "-o", "rw"):
        assert names(mountpoint)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    [ready] = [entry for entry in entries if entry["message"] == f"mounted on {mountpoint}"]
    assert (ready["level"], ready["logger"]) == ("INFO", "bundlefs.fuse.session")
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]+\+00:00", ready["time"])


def test_sigusr1(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with mounted(image, mountpoint, "--log-file", log) as mount:
        for count in (1, 2):
            os.kill(mount.pid, signal.SIGUSR1)
            assert eventually(lambda n=count: log.read_text().count("INFO: status: ") == n)  # type: ignore[misc]
        assert eventually(lambda: "INFO: thread: " in log.read_text())
        text = log.read_text()
        assert "'phase': 'idle'" in text
        task = r"INFO: task: +bundlefs\.fuse\.ending\.Ending\.on_signal at .*:[0-9]+"
        assert re.search(task, text)
        assert len(names(mountpoint)) == 4


@pytest.mark.parametrize("busy", [False, True])
def test_after_sigkill(image: Path, mountpoint: Path, *, busy: bool) -> None:
    assert attempt("mount", image, mountpoint).code == 0
    with contextlib.ExitStack() as stack:
        if busy:
            stack.enter_context((mountpoint / "image.part.00").open("rb"))
        pid = read_status(mountpoint)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert ended(pid, 10)
        line = refusal("mount", image, mountpoint, code=1)
        assert f"a dead mount? try: bundlefs umount {mountpoint}" in line
        bundlefs("umount", *(["--lazy"] if busy else []), mountpoint)
        assert not is_mounted(mountpoint)
        with mounted(image, mountpoint):
            assert len(names(mountpoint)) == 4
