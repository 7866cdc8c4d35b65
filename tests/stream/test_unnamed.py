"""Files that hold a key or an image have no name before they are whole."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundlefs.base import files as unnamed
from bundlefs.base.errors import BundleError
from bundlefs.base.files import Draft, read_fully, umask
from bundlefs.bundling.sinks import DirectorySink, written
from bundlefs.cli.new_file import NewFile
from bundlefs.state import file as statefile
from bundlefs.state.points_file import PointsFile
from tests.mount.commands import names

SECRET = b"the key or the image"


@pytest.fixture(params=["as it is", "no file without a name", "no /proc"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file system of the tests, and those where a name has to be there from the start."""
    kind = str(request.param)
    if kind == "no file without a name":
        opened = os.open

        def refuse(path: str, flags: int, *more: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return opened(path, flags, *more)

        monkeypatch.setattr(os, "open", refuse)
    if kind == "no /proc":
        is_dir = Path.is_dir
        monkeypatch.setattr(Path, "is_dir", lambda path: "/proc/" not in str(path) and is_dir(path))
    return kind


def write_state(path: Path) -> None:
    statefile.replace(path, SECRET)


def write_points(path: Path) -> None:
    PointsFile(path).save(SECRET)


def write_image(path: Path) -> None:
    with NewFile(path, force=True) as new:
        os.write(new.file, SECRET)


def write_part(path: Path) -> None:
    with written(DirectorySink(path.parent), path.name) as file:
        file.write(memoryview(SECRET))


WRITERS = [write_state, write_points, write_image]


@pytest.mark.parametrize("write", WRITERS)
def test_nothing_has_a_name_until_it_is_on_the_disk(
    tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    fsync = os.fsync

    def look(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            seen.append(names(tmp_path))
        fsync(file)

    monkeypatch.setattr(os, "fsync", look)
    write(tmp_path / "file")
    assert seen == [[]]
    write(tmp_path / "file")
    assert seen == [[], ["file"]]
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("write", [*WRITERS, write_part])
def test_one_standard_of_durability(
    tmp_path: Path, write: Callable[[Path], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_sync(file: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def note_name(old: Path, new: Path) -> Path:
        steps.append("name")
        return rename(old, new)

    write(tmp_path / "file")
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_name)
    write(tmp_path / "file")
    assert steps == ["file", "name", "folder"], kind


def test_the_umask_is_learnt_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    previous = os.umask(0o027)
    try:
        with monkeypatch.context() as watched:
            watched.setattr(
                os, "umask", lambda _: pytest.fail("other threads make files meanwhile")
            )
            assert umask() == 0o027
        monkeypatch.setattr(unnamed, "_STATUS", Path("/no/such/file"))
        assert (umask(), umask()) == (0o027, 0o027)
    finally:
        os.umask(previous)


def test_a_read_is_whole_though_the_system_gives_it_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 3), offset))
    (tmp_path / "file").write_bytes(SECRET)
    with (tmp_path / "file").open("rb") as file:
        read = [read_fully(file.fileno(), offset, 9) for offset in (0, 4, 15, 40)]
    assert read == [SECRET[:9], SECRET[4:13], SECRET[15:], b""]


@pytest.mark.parametrize("write", [*WRITERS, write_part])
def test_everywhere_it_arrives_whole(
    tmp_path: Path, write: Callable[[Path], None], kind: str
) -> None:
    for _ in range(2):
        write(tmp_path / "file")
        assert (tmp_path / "file").read_bytes().startswith(SECRET), kind
        assert names(tmp_path) == ["file"]


def test_a_name_that_has_to_be_there_is_private(tmp_path: Path, kind: str) -> None:
    previous = os.umask(0)
    try:
        with Draft(tmp_path / "file", ".new") as draft:
            assert stat.S_IMODE(os.fstat(draft.file).st_mode) == 0o600
            there = names(tmp_path)
    finally:
        os.umask(previous)
    assert [name[-4:] for name in there] == ([] if kind == "as it is" else [".new"])
    assert names(tmp_path) == [], "nothing of what was not published is left"


def test_a_name_that_is_taken_meanwhile(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    new = NewFile(path, force=False)
    os.write(new.file, SECRET)
    path.write_bytes(b"another's")
    with pytest.raises(BundleError, match="file exists; --force overwrites it"), new:
        pass
    assert (path.read_bytes(), names(tmp_path)) == (b"another's", ["file"]), kind


def test_the_modes(tmp_path: Path, kind: str) -> None:
    previous = os.umask(0o027)
    try:
        write_image(tmp_path / "image")
        write_state(tmp_path / "state")
    finally:
        os.umask(previous)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("image", "state")]
    assert modes == [0o640, 0o600], kind


KILLED = """
import os, signal, sys
from pathlib import Path
from bundlefs.cli.new_file import NewFile
with NewFile(Path(sys.argv[1]), force=False) as new:
    os.write(new.file, b"half an image")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "disk"], check=False)
    assert ended.returncode == -9
    assert names(tmp_path) == []


def test_a_folder_that_takes_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Draft(tmp_path / "no" / "file")
    with pytest.raises(FileNotFoundError):
        unnamed.open_unnamed(tmp_path / "no")
