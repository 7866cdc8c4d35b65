"""Test images: the same bytes on every run, without a library's random generator.

Sizes are bytes. Every function writes `path` and gives it back.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.tools import run

MIB = 1 << 20
EPOCH = "1700000000"
IDENTITY = "6b3c5f8e-0f6a-4f3c-9a51-3d1f7f0f6b10"
WORDS = b"part manifest prefix extent frontier checkpoint chain carry record padding ".split()


def noise(size: int, seed: str = "noise") -> Iterator[bytes]:
    """Yield `size` bytes that no codec makes smaller, in pieces of at most 1 MiB."""
    for start in range(0, size, MIB):
        yield hashlib.shake_128(f"{seed} {start}".encode()).digest(min(MIB, size - start))


def write(path: Path, pieces: Iterator[bytes]) -> Path:
    """Write `pieces` one after the other."""
    with path.open("wb") as image:
        image.writelines(pieces)
    return path


def random_image(path: Path, size: int, seed: str = "noise") -> Path:
    """Write `size` incompressible bytes."""
    return write(path, noise(size, seed))


def tuned_image(path: Path, random: int, size: int) -> Path:
    """Write `random` incompressible bytes and zeros up to `size`: no holes, size as wanted."""
    path.write_bytes(b"".join(noise(random)) + bytes(size - random))
    return path


def text(size: int, seed: str = "text") -> bytes:
    """Return `size` bytes of words, which deflate to about a fifth."""
    picks = hashlib.shake_128(seed.encode()).digest(size // 5 + 1)
    words = [WORDS[pick % len(WORDS)] for pick in range(256)]
    return b" ".join([words[pick] for pick in picks])[:size].ljust(size, b".")


def text_image(path: Path, size: int, seed: str = "text") -> Path:
    """Write `size` compressible bytes."""
    path.write_bytes(text(size, seed))
    return path


def sparse_image(path: Path, size: int, data: Mapping[int, bytes]) -> Path:
    """Write a file of `size` bytes that is a hole but for `data`, by offset."""
    with path.open("wb") as image:
        image.truncate(size)
        for offset, piece in data.items():
            image.seek(offset)
            image.write(piece)
    return path


def file_tree(folder: Path) -> Path:
    """Write the files of a small system: text, noise, an empty file, a link, deep folders."""
    for number in range(40):
        below = folder / f"usr/share/doc/package{number % 7}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"copyright{number}").write_bytes(text(3000 + 700 * number, f"copyright{number}"))
    (folder / "boot").mkdir()
    random_image(folder / "boot/vmlinuz", 3 * MIB + 17, "vmlinuz")
    (folder / "boot/empty").touch()
    (folder / "vmlinuz").symlink_to("boot/vmlinuz")
    # mke2fs copies the access times. Those that lie ahead of all others stay when it reads.
    ahead = time.time() + 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (ahead, float(EPOCH)), follow_symlinks=False)
    return folder


def ext4_image(path: Path, folder: Path, size: int = 32 * MIB) -> Path:
    """Make an ext4 file system of the files in `folder`, with fixed identity and time.

    mke2fs leaves extents that are allocated but unwritten. Whether SEEK_DATA calls those
    data or a hole depends on what the page cache holds of them, so the image is copied
    with real holes: two tools that look at different times see the same.
    """
    # E2FSPROGS_FAKE_TIME is honoured by every release of mke2fs that has -d.
    env = dict(os.environ, E2FSPROGS_FAKE_TIME=EPOCH)
    fixed = ["-U", IDENTITY, "-E", f"hash_seed={IDENTITY},root_owner=0:0"]
    raw = path.with_suffix(".raw")
    command = ["mke2fs", "-q", "-F", "-t", "ext4", *fixed, "-d", str(folder)]
    run([*command, raw, f"{size // 1024}k"], env=env)
    run(["cp", "--sparse=always", raw, path])
    raw.unlink()
    return path


def unwritten_image(path: Path, size: int) -> Path:
    """Allocate `size` bytes and write one MiB in three: the rest is unwritten extents."""
    with path.open("wb") as image:
        os.posix_fallocate(image.fileno(), 0, size)
        for offset in range(0, size, 3 * MIB):
            image.seek(offset)
            image.writelines(noise(MIB, str(offset)))
        os.fsync(image.fileno())
    return path
