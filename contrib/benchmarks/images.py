"""Images to measure on: a real ext4 of this machine's files, multiples of it, sparse ones."""

import os
import shutil
import subprocess
from pathlib import Path

MIB = 1 << 20


def real(path: Path, size: int) -> Path:
    """Make an ext4 image of `size` bytes, mostly filled with binaries, libraries and texts."""
    tree = path.with_suffix(".tree")
    room = size * 85 // 100
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
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", str(tree), str(path)]
    subprocess.run([*command, f"{size // 1024}k"], check=True)
    shutil.rmtree(tree)
    dense(path, path)
    return path


def _sources() -> list[Path]:
    found = []
    for top in ("/usr/bin", "/usr/lib", "/usr/share/doc", "/usr/share"):
        for folder, _, names in os.walk(top):
            paths = (Path(folder, name) for name in sorted(names))
            found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


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
