"""Folders: all files in one, and one that is a small file system of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.mounts import detach
from tests.support.tools import run


def contents(folder: Path) -> dict[str, bytes]:
    """Give all files in a folder, hidden ones and all."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def tiny(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes, on a folder that is made if need be."""
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder])
    try:
        yield folder
    finally:
        detach(folder)


def filled(folder: Path) -> Path:
    """Write a file until nothing more fits, and give it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(folder).f_bfree == 0
    return ballast
