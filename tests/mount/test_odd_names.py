"""An image whose name is not UTF-8 and moves the cursor: all commands, under a strict locale.

The streams are strict, as under en_US.UTF-8: with C.UTF-8 Python takes any byte and hides this.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.mount.test_service import manager, service, wait_for
from tests.support import images
from tests.support.mounts import BUNDLEFS, Mount, detach, mounted, settings

NAME = os.fsdecode(b"caf\xe9\x1b[31m\n\xe2\x80\xae.raw")
WRITTEN = r"caf\udce9\x1b[31m\n\u202e.raw"
STRICT = {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
SIZE = 11 * images.MIB


def command(*words: str | Path, code: int = 0, env: dict[str, str] | None = None) -> str:
    """Run a command as a user whose locale is strict; return its stdout."""
    done = subprocess.run(
        [*BUNDLEFS, *map(str, words)],
        env=settings(STRICT | (env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, printable(done.stderr.decode())) == (code, "")
    return printable(done.stdout.decode())


def printable(text: str) -> str:
    assert all(line.isprintable() for line in text.split("\n"))
    return text


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / NAME, SIZE)


@pytest.fixture
def mount(image: Path, tmp_path: Path) -> Iterator[Mount]:
    with mounted(image, tmp_path / f"mnt {NAME}", env=STRICT) as made:
        yield made


def test_the_commands(mount: Mount, tmp_path: Path) -> None:
    assert len(mount.parts()) == 2
    assert f"image     {tmp_path}/{WRITTEN}, 11.0 MiB\n" in command("status", mount.path)
    assert "all parts are known" in command("status", "--watch", mount.path)
    assert json.loads(command("status", "--json", mount.path))["image"] == str(mount.image)
    (kept,) = json.loads(command("state", "list", "--json"))
    assert kept["image"] == str(mount.image)
    listed, shown = command("state", "list"), command("state", "show", mount.image)
    for text in (listed, shown):
        assert text.startswith(f"{tmp_path}/{WRITTEN}\n")
        assert f"mounted  process {mount.pid}, mounted on {tmp_path}/mnt {WRITTEN}\n" in text
    assert b"\x1b" not in (mount.path / ".bundlefs/metrics").read_bytes()
    command("umount", mount.path)
    assert command("state", "forget", mount.image).startswith("forgot ")
    assert command("state", "list").startswith("nothing in ")


def test_a_stream_of_ascii(mount: Mount) -> None:
    for ascii_only in ({"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "C"}):
        assert WRITTEN in command("status", mount.path, env=ascii_only)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failure_is_logged(form: str, image: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", "--log-file", log, "--log-format", form) as mount:
        image.write_bytes(b"another")
        with pytest.raises(OSError, match="Stale"):
            # Not glob(), which hides an error from Python 3.13 on.
            list(mount.path.iterdir())
        assert "phase     failed: failed, and stays so" in command("status", mount.path, code=1)
        said = printable(log.read_text(encoding="utf-8"))
    if form == "json":
        said = "\n".join(json.loads(line)["message"] for line in said.splitlines())
    assert f"the bundle of {tmp_path}/{WRITTEN} has failed and stays failed" in said


def test_a_folder_of_them(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    image.rename(folder / NAME)
    names = [NAME, os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xea")]
    for bad in names[1:]:
        (folder / bad).write_bytes(b"QED\0".ljust(1 << 20, b"\0"))
    with mounted(folder, tmp_path / "mnt", env=STRICT) as mount:
        assert len(list((mount.path / NAME).glob("*.part.*"))) == 2
        for bad in names[1:]:
            with pytest.raises(OSError, match="rror"):
                list((mount.path / bad).iterdir())
        said = command("status", mount.path)
        assert f"  {WRITTEN}: complete\n" in said
        assert f"  caf\\udce9: failed: image {folder}/caf\\udce9 is a QED image" in said
        found = json.loads(command("status", "--json", mount.path))["images"]
        assert {one["name"] for one in found} == set(names)
        command("state", "show", folder / NAME)


def test_what_a_service_manager_hears(image: Path, tmp_path: Path) -> None:
    address, mountpoint = str(tmp_path / "notify"), tmp_path / "mnt"
    mountpoint.mkdir()
    log = tmp_path / "log"
    try:
        with manager(address) as heard, service(image, mountpoint, log, NOTIFY_SOCKET=address):
            assert wait_for(heard, "^STATUS=") == f"STATUS=idle: {tmp_path}/{WRITTEN}"
            list(mountpoint.glob("*"))
            done = f"<6>the bundle of {tmp_path}/{WRITTEN} is complete"
            assert eventually(lambda: done in printable(log.read_text(encoding="utf-8")))
    finally:
        detach(mountpoint)


def test_a_mountpoint_in_use(mount: Mount, tmp_path: Path) -> None:
    """What fusermount3 says repeats the name."""
    words = [*BUNDLEFS, "umount", str(mount.path)]
    with (mount.path / "image.part.00").open("rb"):
        done = subprocess.run(words, env=settings(STRICT), capture_output=True, check=False)
    said = done.stderr.decode()
    assert (done.returncode, printable(said)) == (1, said)
    assert said.startswith(f"bundlefs: cannot unmount {tmp_path}/mnt {WRITTEN}: ")
