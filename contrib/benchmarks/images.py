"""Images to measure on: a real ext4 of this machine's files, multiples of it, sparse ones."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
OVERHEAD = 4 * MIB
"""What an ext4 has besides files, which in a small one is more than a share of it."""


def real(path: Path, size: int) -> Path:
    """Make an ext4 image of `size` bytes, mostly filled with binaries, libraries and texts."""
    return dense(filled(path, size, min(size * 85 // 100, size - OVERHEAD)), path)


def filled(path: Path, size: int, data: int) -> Path:
    """Make an ext4 image of `size` bytes with so many bytes of files; the rest of it is holes.

    Where the machine has fewer, its files are there several times, too far apart for any bundler
    to take notice.
    """
    tree = path.with_suffix(".tree")
    room = data
    for times in itertools.count():
        room = _copied(tree / f"{times}" if times else tree, room)
        if room < MIB:
            break
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", str(tree), str(path)]
    subprocess.run([*command, f"{size // 1024}k"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return path


def _copied(tree: Path, room: int) -> int:
    """Copy files of this machine into a folder; return how much of the room is left."""
    before = room
    for source in _sources():
        length = source.stat().st_size
        if length > room:
            continue
        room -= length
        copy = tree / source.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        if room < MIB:
            break
    # A machine without a single small file does not get on by this.
    return room if room < before else 0


def _sources() -> Iterator[Path]:
    for top in ("/usr/bin", "/usr/lib", "/usr/share/doc", "/usr/share"):
        for folder, _, names in os.walk(top):
            paths = (Path(folder, name) for name in sorted(names))
            yield from (path for path in paths if path.is_file() and not path.is_symlink())


def dense(source: Path, path: Path, times: int = 1) -> Path:
    """Write `source`, holes and all, `times` over to `path`."""
    data = source.read_bytes()
    with path.open("wb") as target:
        for _ in range(times):
            target.write(data)
    return path


def sparse(source: Path, path: Path, data: int, size: int) -> Path:
    """Spread the first `data` bytes of `source` over a sparse image of `size` bytes."""
    pieces = 100
    step, length = size // pieces // MIB * MIB, data // pieces // 4096 * 4096
    with source.open("rb") as reader, path.open("wb") as target:
        for number in range(pieces):
            target.seek(number * step)
            target.write(reader.read(length))
        target.truncate(size)
    return path
