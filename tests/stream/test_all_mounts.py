"""What a mount answers is not trusted: anybody may mount something and call it bundlefs."""

import json
import os
from pathlib import Path

import pytest

from bundlefs.fuse import all_mounts, mountpoint

STATUS = {"phase": "idle", "image": "/disk", "error": None}
STRANGE = [
    b"",
    b"[]",
    b"null",
    b"\xff",
    b"[" * 100_000,
    b"1" * 5000,
    json.dumps({**STATUS, "phase": 3}).encode(),
    json.dumps({**STATUS, "error": {}}).encode(),
    json.dumps({**STATUS, "image_size": "7"}).encode(),
    json.dumps({**STATUS, "tar_size": -1}).encode(),
    json.dumps({**STATUS, "image_size": float("inf")}).encode(),
    json.dumps({**STATUS, "image_size": float("nan")}).encode(),
    json.dumps({**STATUS, "image_size": 10**400}).encode(),
    json.dumps({**STATUS, "images": 1}).encode(),
    json.dumps({**STATUS, "images": ["one"]}).encode(),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".bundlefs").mkdir()
    return tmp_path / ".bundlefs"


def entry(point: str) -> mountpoint.TableEntry:
    """Make up a mount at a path; return it as the kernel's table would have it."""
    root = os.open(point, os.O_PATH)
    number = all_mounts.mount_number(root)
    os.close(root)
    options = frozenset(("rw", "user_id=1000"))
    return mountpoint.TableEntry(number, "/", point, mountpoint.FS_TYPE, "disk", options)


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> all_mounts.Mounted:
    """Ask the one mount that the folder stands for."""
    one = entry(str(folder.parent))
    monkeypatch.setattr(all_mounts, "table", lambda: iter([one]))
    [found] = all_mounts.all_mounts()
    return found


def test_a_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "status.json").write_text(json.dumps(STATUS))
    found = asked(folder, monkeypatch)
    assert (found.answer, found.status, found.error) == ("status", STATUS, None)
    assert not found.at_fault


@pytest.mark.parametrize("content", STRANGE, ids=range(len(STRANGE)))
def test_no_status(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    (folder / "status.json").write_bytes(content)
    found = asked(folder, monkeypatch)
    assert (found.answer, found.status) == ("strange", None)
    assert found.at_fault


def test_nothing_is_followed_and_nothing_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "status.json"
    os.mkfifo(file)
    assert asked(folder, monkeypatch).answer == "strange"
    file.unlink()
    (elsewhere := folder.parent / "elsewhere").write_text(json.dumps(STATUS))
    file.symlink_to(elsewhere)
    assert asked(folder, monkeypatch).answer == "strange"
    file.unlink()
    file.symlink_to("/dev/zero")
    assert asked(folder, monkeypatch).answer == "strange"


def test_the_kernels_escapes() -> None:
    escapes = rb"a\040b\011c\012d\134e\043f\351\134040\x\8"
    assert mountpoint.unescaped(escapes) == "a b\tc\nd\\e#f\udce9\\040\\x\\8"
