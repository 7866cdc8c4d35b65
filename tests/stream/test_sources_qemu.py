"""Images that qemu reads: what is refused of them, and when the server of one ends."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from bundlefs.base.errors import ImageError
from bundlefs.image.open import open_source
from bundlefs.image.source import Source
from tests.stream.forms import refused
from tests.support import sources
from tests.support.processes import disk_server, ended
from tests.support.sources import Originals
from tests.support.tools import run, tool


def test_names_of_other_files_are_not_followed(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "image"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", path])
    assert "has a backing file" in refused(path)
    data = tmp_path / "data"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", path, "1M"])
    assert "has its data in another file" in refused(path)
    sources.qemu("vmdk")(raw, tmp_path / "parent")
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", tmp_path / "parent", "-F", "vmdk", path])
    assert "has a parent file" in refused(path)
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "1M"])
    assert "only describes a disk that is in other files" in refused(path)
    split = tmp_path / "split.vmdk"
    sources.qemu("vmdk", "-o", "subformat=twoGbMaxExtentSparse")(raw, split)
    assert "only describes a disk that is in other files" in refused(split)
    extent = tmp_path / "split-s001.vmdk"
    assert "only a part of a disk that has several files" in refused(extent)


def test_a_vmdk_that_holds_nothing_but_a_description(raw: Path, tmp_path: Path) -> None:
    """With a capacity of 0 qemu takes the text inside for the one to follow."""
    path = tmp_path / "image"
    sources.qemu("vmdk")(raw, path)
    with path.open("r+b") as stream:
        stream.seek(12)
        stream.write(bytes(8))
    assert "only describes a disk that is in other files" in refused(path)


@pytest.mark.parametrize("version", [0, 4, 0xFFFFFFFF])
def test_a_qcow2_of_a_version_that_there_is_not(version: int, make: Callable[[str], Path]) -> None:
    path = make("qcow2")
    with path.open("r+b") as stream:
        stream.seek(4)
        stream.write(struct.pack(">I", version))
    assert f"says that it is qcow2 of version {version}, and there are 2 and 3: " in refused(path)


def test_a_qcow2_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"QFI\xfb")
    assert "is cut short: it has 4 bytes, and a header alone has 72; get it" in refused(path)


def test_an_encrypted_qcow2(make: Callable[[str], Path]) -> None:
    path = make("qcow2")
    with path.open("r+b") as stream:
        stream.seek(32)
        stream.write(struct.pack(">I", 2))
    assert "is encrypted" in refused(path)


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi"])
def test_a_header_of_nothing(form: str, make: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(make(form).read_bytes()[:0x48].ljust(4096, b"\0"))
    refused(path)


def test_in_use_by_a_virtual_machine(make: Callable[[str], Path], tmp_path: Path) -> None:
    path = make("qcow2")
    end = tmp_path / "nbd"
    with subprocess.Popen([tool("qemu-nbd"), "-f", "qcow2", "-k", end, path]) as server:
        while not end.exists():
            time.sleep(0.01)
        with pytest.raises(ImageError, match='Failed to get shared "write" lock'):
            open_source(path)
        server.terminate()


@pytest.mark.parametrize(
    ("tools", "package"),
    [([], "qemu-utils"), (["qemu-nbd", "qemu-img"], "util-linux")],
)
def test_tools_that_are_not_installed(
    tools: list[str],
    package: str,
    make: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("qcow2")
    for name in tools:
        (tmp_path / name).symlink_to(tool(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"apt install {package}" in refused(path)


def test_the_server_dies(make: Callable[[str], Path]) -> None:
    with closing(open_source(make("qcow2"))) as source:
        os.kill(disk_server(os.getpid()), signal.SIGKILL)
        for _ in range(8):
            with pytest.raises(OSError, match=r"NBD server, qemu-nbd, .* mount it again"):
                source.read(0, 1)


def test_the_server_outlasts_the_thread_that_opened_it(
    make: Callable[[str], Path], originals: Originals
) -> None:
    """The kernel takes the end of that thread for the end of the server's parent."""
    opened: list[Source] = []
    thread = Thread(target=lambda: opened.append(open_source(make("qcow2"))))
    thread.start()
    thread.join()
    # As the kernel has it: join() returns while the thread is still on its way out.
    deadline = time.monotonic() + 5
    while Path(f"/proc/self/task/{thread.native_id}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with closing(opened[0]) as source:
        assert source.read(0, 1 << 20) == originals.raw.read_bytes()[: 1 << 20]


def test_the_server_ends_with_who_is_killed(make: Callable[[str], Path]) -> None:
    script = (
        "import sys, time; from bundlefs.image.open import open_source;"
        " source = open_source(sys.argv[1]); print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(make("qcow2"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server = disk_server(process.pid)
        process.kill()
    assert ended(server, 5)
