"""Sinks: a file has its name when it is whole, and at no other time; whatever goes wrong."""

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bundlefs import (
    DirectorySink,
    MemorySink,
    Sink,
    SinkFile,
)
from bundlefs.bundling.sinks import written
from bundlefs.state.index import PART_SIZE
from tests import reference
from tests.stream.badsinks import IMAGE, bundle_to, parts_in
from tests.stream.engine import SECRET
from tests.support.folders import contents, tiny
from tests.support.tools import run, tool

KIB = 1 << 10
MIB = 1 << 20
PROMPT = 20
"""Seconds within which an error must have come, with two retries of the store's own."""


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """The parts of the image."""
    sink = MemorySink()
    bundle_to(sink, IMAGE)
    tar = reference.unbundle(parts_in(sink.files), SECRET.key, SECRET.iv)
    assert reference.untar(tar) == IMAGE
    return {name: data for name, data in sink.files.items() if ".part." in name}


def parts_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if ".part." in name}


# --- a folder ---


def test_a_folder_gets_the_bundle(tmp_path: Path, whole: dict[str, bytes]) -> None:
    bundle_to(DirectorySink(tmp_path), IMAGE)
    assert sorted(contents(tmp_path)) == ["image.manifest.xml", *sorted(whole)]
    assert parts_of(tmp_path) == whole


@pytest.mark.parametrize("form", [str, Path])
def test_a_folder_is_named_by_any_path(form: Callable[[Path], str | Path], tmp_path: Path) -> None:
    sink = DirectorySink(form(tmp_path))
    with written(sink, "x") as file:
        file.write(memoryview(b"content"))
    assert contents(tmp_path) == {"x": b"content"}


def test_a_file_has_no_name_before_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    file = DirectorySink(tmp_path).open("x")
    file.write(memoryview(b"new"))
    assert (tmp_path / "x").read_bytes() == b"old"
    [beside] = [name for name in contents(tmp_path) if name != "x"]
    assert beside.startswith(".x."), "a listing does not show it, and a copy tool leaves it out"
    file.close()
    assert contents(tmp_path) == {"x": b"new"}


def test_a_discarded_file_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    file = DirectorySink(tmp_path).open("x")
    file.write(memoryview(b"new"))
    file.discard()
    file.discard()
    assert contents(tmp_path) == {"x": b"old"}


def test_an_empty_file_is_one(tmp_path: Path) -> None:
    DirectorySink(tmp_path).open("x").close()
    assert contents(tmp_path) == {"x": b""}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027, 0])
def test_a_file_has_the_mode_that_the_umask_gives(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        DirectorySink(tmp_path).open("x").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def test_the_umask_of_other_threads_is_let_alone(tmp_path: Path) -> None:
    """It belongs to the whole process: a private file must not come out open to all meanwhile."""
    end, found = threading.Event(), set()

    def look() -> None:
        while not end.is_set():
            path = tmp_path / "looked at"
            path.touch()
            found.add(path.stat().st_mode)
            path.unlink()

    before = os.umask(0o077)
    thread = threading.Thread(target=look)
    try:
        thread.start()
        for number in range(300):
            DirectorySink(tmp_path).open(f"{number}").close()
    finally:
        end.set()
        thread.join()
        os.umask(before)
    assert found == {stat.S_IFREG | 0o600}


def test_what_a_killed_run_left_is_swept(tmp_path: Path, whole: dict[str, bytes]) -> None:
    script = (
        "import os, signal, sys; from bundlefs import *\n"
        "w = BundleWriter('image', 40_000_000, DirectorySink(sys.argv[1]), level=0)\n"
        "w.write(bytes(35_000_000))\n"
        "while not any(n.startswith('.') for n in os.listdir(sys.argv[1])): pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert killed.returncode < 0
    assert [name for name in contents(tmp_path) if name.startswith(".")]
    bundle_to(DirectorySink(tmp_path), IMAGE)
    # What it finished is there again, and whole; what it did not has gone.
    assert sorted(contents(tmp_path)) == sorted([*whole, "image.manifest.xml"])
    assert parts_of(tmp_path) == whole


def test_files_of_others_are_not_swept(tmp_path: Path) -> None:
    others = [
        ".x.12345678",
        ".image.part.00.123456789",
        ".image.part.01.12345678",
        "image.part.00.x",
    ]
    for name in others:
        (tmp_path / name).touch()
    DirectorySink(tmp_path).open("image.part.00").close()
    assert sorted(contents(tmp_path)) == sorted([*others, "image.part.00"])


def test_names_with_wildcards_sweep_their_own(tmp_path: Path) -> None:
    (tmp_path / ".x[12].12345678").touch()
    (tmp_path / ".x1.12345678").touch()
    DirectorySink(tmp_path).open("x[12]").close()
    assert sorted(contents(tmp_path)) == [".x1.12345678", "x[12]"]


def test_a_folder_is_made_when_it_is_needed(tmp_path: Path) -> None:
    sink = DirectorySink(tmp_path / "x" / "y")
    assert contents(tmp_path) == {}
    sink.open("image.part.00").close()
    assert contents(sink.folder) == {"image.part.00": b""}


@pytest.mark.parametrize("below", ["", "y"])
def test_a_folder_that_cannot_be_is_named(below: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match=f"/x/{below}".rstrip("/")):
        DirectorySink(tmp_path / "x" / below).open("image.part.00")


def test_a_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/" + 250 * "n"):
        DirectorySink(tmp_path).open(250 * "n")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("room", [256 * KIB, PART_SIZE + 2 * MIB, 2 * PART_SIZE])
def test_a_full_disk_is_said_and_survived(
    room: int, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with tiny(tmp_path / "disk", room) as disk:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"No space left.*image\.part\.0[012]"):
            bundle_to(DirectorySink(disk), IMAGE)
        assert time.monotonic() - start < PROMPT
        there = contents(disk)
        assert there.items() < whole.items()
        assert len(there) == room // PART_SIZE
        run(["mount", "-o", "remount,size=64m", disk])
        bundle_to(DirectorySink(disk), IMAGE)
        assert parts_of(disk) == whole


# --- memory, and a sink of one's own ---


def test_memory_holds_whole_files_alone() -> None:
    sink = MemorySink()
    file = sink.open("x")
    file.write(memoryview(b"con"))
    file.write(memoryview(b"tent"))
    assert sink.files == {}
    file.close()
    sink.open("y").discard()
    assert sink.files == {"x": b"content"}


@dataclass
class HashingFile:
    """A file that needs no class of ours."""

    found: dict[str, int]
    name: str
    size: int = 0

    def write(self, data: memoryview) -> int:
        self.size += len(data)
        return len(data)

    def close(self) -> None:
        self.found[self.name] = self.size

    def discard(self) -> None:
        self.size = 0


@dataclass
class HashingSink:
    """A sink by protocol: mypy, which the tests pass in strict mode, takes it for a `Sink`."""

    found: dict[str, int] = field(default_factory=dict)

    def open(self, filename: str) -> HashingFile:
        return HashingFile(self.found, filename)


def test_any_class_with_the_methods_is_a_sink(whole: dict[str, bytes]) -> None:
    own = HashingSink()
    sink: Sink = own
    file: SinkFile = sink.open("x")
    file.discard()
    bundle_to(sink, IMAGE)
    manifest = own.found.pop("image.manifest.xml")
    assert manifest > 1000
    assert own.found == {name: len(data) for name, data in whole.items()}


MISFITS = {
    "no open": "class It: ...",
    "opens nothing": "class It:\n    def open(self, name: str) -> None: ...",
    "takes bytes alone": (
        "class File:\n"
        "    def write(self, data: bytes) -> int: return 0\n"
        "    def close(self) -> None: ...\n"
        "    def discard(self) -> None: ...\n"
        "class It:\n    def open(self, name: str) -> File: return File()"
    ),
}
FITTING = MISFITS["takes bytes alone"].replace("data: bytes", "data: memoryview")


def test_the_protocol_is_one_for_type_checkers(tmp_path: Path) -> None:
    use = "from bundlefs import BundleWriter\nBundleWriter('image', 1, It())\n"
    for number, source in enumerate([FITTING, *MISFITS.values()]):
        (tmp_path / f"program{number}.py").write_text(f"{source}\n{use}")
    settings = [f"--config-file={os.devnull}", f"--cache-dir={tmp_path / 'cache'}"]
    command = [tool("mypy"), "--strict", "--follow-imports=silent", *settings, "."]
    # It finds the package where this interpreter does.
    where = os.environ | {"MYPYPATH": str(Path(__file__).parents[2])}
    checked = subprocess.run(
        command, cwd=tmp_path, env=where, capture_output=True, text=True, check=False
    )
    wrong = sorted(line for line in checked.stdout.splitlines() if ": error: " in line)
    assert [line.partition(":")[0] for line in wrong] == [
        f"program{number}.py" for number in range(1, 1 + len(MISFITS))
    ]
    assert all('expected "Sink"  [arg-type]' in line for line in wrong)
