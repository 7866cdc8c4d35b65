"""What happens to a file while somebody reads it: another one from then on, or the same."""

import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

Change = Callable[[Path], object]

AT = (1 << 20) + 7
"""Where the bytes are that become others."""
_OTHER = b"sixteen bytes..."


def edit(path: Path, at: int = AT) -> None:
    """Write 16 other bytes in place, and set the time back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(_OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_by_mapping(path: Path) -> None:
    """Write 16 other bytes in place through memory."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[AT : AT + len(_OTHER)] = _OTHER


def replace(path: Path) -> None:
    """Rename another over it, of the same size and time."""
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    edit(other)
    other.rename(path)


def grow(path: Path) -> None:
    """Append to it."""
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    """Cut its last byte off."""
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    """Cut it off at its start."""
    os.truncate(path, 0)


CHANGES: list[Change] = [edit, edit_by_mapping, replace, grow, shrink, empty]


def move(path: Path) -> None:
    """Put a copy in its place, as a synchronizing tool does that looks at times."""
    shutil.copyfile(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def touch(path: Path) -> None:
    """Set its times."""
    os.utime(path)


def lock_up(path: Path) -> None:
    """Let nobody else read it."""
    path.chmod(0o400)


def link(path: Path) -> None:
    """Give it another name, too."""
    path.with_suffix(f".{time.monotonic_ns()}").hardlink_to(path)


def write_anew(path: Path) -> None:
    """Write its own bytes over it."""
    path.write_bytes(path.read_bytes())


TOUCHES: list[Change] = [move, touch, lock_up, link, write_anew]
"""After these it has the bytes that it had."""
