"""The files of a mount as programs read them: every way of reading, and the tools for folders."""

import errno
import mmap
import os
import random
from pathlib import Path

from tests.mount.shown import every_name, fails_with
from tests.support import images, oracles
from tests.support.mounts import Mount, mounted
from tests.support.tools import run

MIB = images.MIB
PART = 10 * MIB
DIGEST = "user.bundlefs.sha1"


# Ways of reading


@every_name
def test_random_ranges(name: str, shared_mount: Mount, shared_copy: Path) -> None:
    expected = (shared_copy / name).read_bytes()
    dice = random.Random(name)  # noqa: S311  # the same ranges on every run
    descriptor = os.open(shared_mount.path / name, os.O_RDONLY)
    try:
        for _ in range(200):
            offset = dice.randrange(len(expected) + 100)
            length = dice.choice([1, 15, 4096, 65537, 2 * MIB])
            assert os.pread(descriptor, length, offset) == expected[offset : offset + length]
    finally:
        os.close(descriptor)


@every_name
def test_mmap(name: str, shared_mount: Mount, shared_copy: Path) -> None:
    with (
        (shared_mount.path / name).open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        assert mapped[-1] == (shared_copy / name).read_bytes()[-1]
        assert mapped[:] == (shared_copy / name).read_bytes()


@every_name
def test_past_the_page_cache(name: str, shared_mount: Mount, shared_copy: Path) -> None:
    expected = (shared_copy / name).read_bytes()
    descriptor = os.open(shared_mount.path / name, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, MIB) as page:
            for offset in range(0, len(expected) + MIB, MIB):
                length = os.preadv(descriptor, [page], offset)
                assert page[:length] == expected[offset : offset + MIB]
    finally:
        os.close(descriptor)


@every_name
def test_dd_in_odd_blocks(
    name: str, shared_mount: Mount, shared_copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(["dd", f"if={shared_mount.path / name}", f"of={out}", "bs=123457", "status=none"])
    oracles.assert_same(out, shared_copy / name)


@every_name
def test_beyond_the_end(name: str, shared_mount: Mount, shared_copy: Path) -> None:
    size = (shared_copy / name).stat().st_size
    with (shared_mount.path / name).open("rb", buffering=0) as stream:
        assert stream.seek(0, os.SEEK_END) == size
        assert stream.read(1) == b""
        assert stream.seek(size + 12345) == size + 12345
        assert stream.read(4096) == b""
        stream.seek(size - 1)
        assert stream.read(4096) == (shared_copy / name).read_bytes()[-1:]


def test_reading_a_folder_is_refused(shared_mount: Mount) -> None:
    with fails_with(errno.EISDIR):
        shared_mount.path.open("rb")


# Tools that people point at a folder


def test_df(shared_mount: Mount, shared_copy: Path) -> None:
    fields = ["--output=source,fstype,size,used,avail,itotal", "-B", "512"]
    source, kind, size, used, available, _ = run(["df", *fields, shared_mount.path]).split()[-6:]
    sealed = sum(path.stat().st_size for path in shared_copy.glob("*.part.*"))
    assert (source.decode(), kind) == (str(shared_mount.image), b"fuse.bundlefs")
    assert (int(size), int(used), available) == (-(-sealed // 512), -(-sealed // 512), b"0")


def test_find_du_and_ls(shared_mount: Mount, shared_copy: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in shared_copy.iterdir()}
    found = run(["find", shared_mount.path, "-type", "f", "-printf", "%f %s\n"]).decode()
    assert dict(line.split() for line in found.splitlines()) == {
        name: str(size) for name, size in sizes.items()
    }
    total = run(["du", "-s", "--apparent-size", "-B1", shared_mount.path]).split()[0]
    assert int(total) - shared_mount.path.stat().st_size == sum(sizes.values())
    listed = run(["ls", "-la", shared_mount.path]).decode()
    assert {line.split()[-1] for line in listed.splitlines()[1:]} - {".", ".."} == set(sizes)


def test_two_mounts_of_one_image(
    shared_image: Path, shared_mount: Mount, shared_copy: Path, tmp_path: Path
) -> None:
    options = ("--level", "1", "--prefix", "second")
    with mounted(shared_image, tmp_path / "mnt", *options) as second:
        parts = second.parts()
        assert [part.stat().st_size for part in parts[:2]] == [PART, PART]
        digests = [os.getxattr(part, DIGEST).decode() for part in parts]
        assert digests == oracles.sha1sum(parts)
        # The same image under another key: no part is the same.
        assert not set(digests) & set(oracles.sha1sum(shared_mount.parts()))
    oracles.assert_same(shared_mount.path / "image.part.01", shared_copy / "image.part.01")
