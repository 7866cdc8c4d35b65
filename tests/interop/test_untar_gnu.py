"""GNU tar itself writes the archives, in each of its formats: the image comes back from all."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from bundlefs.base.errors import BundleError
from bundlefs.base.spans import Span
from bundlefs.codec.untar import Hole, Member, read_member, trailing_ok
from tests.support.images import sparse_image
from tests.support.tools import run

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
# More than any file system's granularity for holes, so that those written are those read.
STEP = 128 * KIB

PLAIN = {
    "v7": ["--format=v7"],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "ustar": ["--format=ustar"],
    "pax": ["--format=pax"],
}
SPARSE = {
    "gnu": ["--format=gnu", "-S"],
    "oldgnu": ["--format=oldgnu", "-S"],
    "pax 1.0": ["--format=pax", "-S"],
    "pax 0.1": ["--format=pax", "-S", "--sparse-version=0.1"],
    "pax 0.0": ["--format=pax", "-S", "--sparse-version=0.0"],
}


def gnu_tar(path: Path, *options: str) -> bytes:
    return run(["tar", *options, "-cf", "-", "-C", path.parent, "--", path.name])


def member_of(stream: bytes) -> Member:
    return read_member(lambda offset, length: stream[offset : offset + length])


def image_of(member: Member, stream: bytes, span: Span) -> bytes:
    return b"".join(
        bytes(piece.length)
        if isinstance(piece, Hole)
        else stream[piece.stream_offset : piece.stream_offset + piece.image.length]
        for piece in member.pieces(span)
    )


def holey_image(path: Path, count: int, tail: int) -> Path:
    """Write `count` extents of half a step in as many steps, and `tail` bytes at the end."""
    noise = Random(count)
    data = {n * STEP: noise.randbytes(STEP // 2) for n in range(count)}
    size = count * STEP + STEP
    return sparse_image(path, size + tail, data | {size: noise.randbytes(tail)})


def require_same(member: Member, stream: bytes, image: bytes) -> None:
    assert member.size == len(image)
    assert image_of(member, stream, Span(0, member.size)) == image
    assert trailing_ok(stream[member.end :])
    for start, stop in ((0, 1), (4095, 4097), (len(image) // 2, len(image) - 1)):
        assert image_of(member, stream, Span(start, stop)) == image[start:stop]


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("size", [5000, 8704, MIB + 1])
def test_plain_formats(tmp_path: Path, options: Sequence[str], size: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(Random(size).randbytes(size))
    stream = gnu_tar(path, *options)
    member = member_of(stream)
    require_same(member, stream, path.read_bytes())
    assert member.name == "image"
    assert len(member.runs) == 1


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("count", [1, 3, 4, 5, 24, 25, 26, 60])
@pytest.mark.parametrize("tail", [0, 1000])
def test_sparse_formats(tmp_path: Path, options: Sequence[str], count: int, tail: int) -> None:
    path = holey_image(tmp_path / "image", count, tail)
    stream = gnu_tar(path, "--hole-detection=seek", *options)
    member = member_of(stream)
    require_same(member, stream, path.read_bytes())
    assert member.name == "image"
    assert len(member.runs) == count + bool(tail)
    assert len(stream) < path.stat().st_size


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
def test_holes_found_by_reading(tmp_path: Path, options: Sequence[str]) -> None:
    # Blocks of zeros become holes of 512 bytes, so that data starts and stops at any block.
    noise = Random(7)
    blocks = [noise.randbytes(512) if noise.random() < 0.5 else bytes(512) for _ in range(2000)]
    path = sparse_image(tmp_path / "image", 2 * MIB, {0: b"".join(blocks)})
    stream = gnu_tar(path, "--hole-detection=raw", *options)
    member = member_of(stream)
    require_same(member, stream, path.read_bytes())
    assert len(member.runs) > 300


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
def test_image_that_is_one_hole(tmp_path: Path, options: Sequence[str]) -> None:
    path = sparse_image(tmp_path / "image", 3 * GIB, {})
    stream = gnu_tar(path, *options)
    member = member_of(stream)
    assert list(member.pieces(Span(0, 4 * GIB))) == [Hole(3 * GIB)]
    assert trailing_ok(stream[member.end :])


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
def test_sparse_images_beyond_8_gib(tmp_path: Path, options: Sequence[str]) -> None:
    data = {offset: Random(offset).randbytes(8192) for offset in (0, 9 * GIB, 20 * GIB - 8192)}
    path = sparse_image(tmp_path / "image", 20 * GIB, data)
    stream = gnu_tar(path, *options)
    member = member_of(stream)
    assert member.size == 20 * GIB
    assert [run.image for run in member.runs] == [Span(at, at + 8192) for at in data]
    for offset, expected in data.items():
        assert image_of(member, stream, Span(offset, offset + 8192)) == expected


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax"])
def test_plain_images_beyond_8_gib(tmp_path: Path, form: str) -> None:
    path = sparse_image(tmp_path / "image", 9 * GIB, {})
    command = ["tar", f"--format={form}", "-cf", "-", "-C", str(tmp_path), "image"]
    # The headers alone: a whole stream of gibibytes of zeros would show nothing more.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        stream = process.stdout.read(4096)
        process.kill()
    member = member_of(stream)
    start = member.runs[0].stream_offset
    assert member.size == member.runs[0].image.stop == 9 * GIB
    assert member.end == start + 9 * GIB
    assert path.stat().st_size == member.size


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("sparse", [[], ["-S"]])
def test_names_longer_than_a_header(tmp_path: Path, form: str, sparse: list[str]) -> None:
    path = holey_image(tmp_path / ("größe-" * 20), 5, 100)
    stream = gnu_tar(path, f"--format={form}", *sparse)
    member = member_of(stream)
    assert member.name == path.name
    require_same(member, stream, path.read_bytes())


def test_global_pax_header(tmp_path: Path) -> None:
    path = holey_image(tmp_path / "image", 5, 100)
    stream = gnu_tar(path, "--format=pax", "-S", "--pax-option=globexthdr.name=g,comment=any")
    assert stream[156:157] == b"g"
    require_same(member_of(stream), stream, path.read_bytes())


def test_archive_with_several_members(tmp_path: Path) -> None:
    for name in ("image", "other"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    stream = run(["tar", "-cf", "-", "-C", tmp_path, "image", "other"])
    member = member_of(stream)
    assert member.name == "image"
    assert not trailing_ok(stream[member.end :])


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_members_that_are_no_files(tmp_path: Path, form: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("link", "symbolic link"), ("folder", "directory"), ("pipe", "named pipe")):
        with pytest.raises(BundleError, match=f"member '{name}/?' is a {what}: the image of"):
            member_of(gnu_tar(tmp_path / name, f"--format={form}"))
    with pytest.raises(BundleError, match="is a character device: the image of a bundle is a"):
        member_of(run(["tar", f"--format={form}", "-cf", "-", "-C", "/dev", "null"]))
    (tmp_path / "image").touch()
    labelled = gnu_tar(tmp_path / "image", "--format=gnu", "--label=disk")
    with pytest.raises(BundleError, match="member 'disk' is a volume's label"):
        member_of(labelled)


def test_extents_that_are_no_whole_blocks(tmp_path: Path) -> None:
    """GNU tar writes none, but reads them, each padded; so does this."""
    info = tarfile.TarInfo("image")
    info.size = 100 + 600 + 48
    info.pax_headers = {
        "GNU.sparse.size": "4000",
        "GNU.sparse.numblocks": "4",
        "GNU.sparse.map": "0,100,1000,600,2000,48,4000,0",
    }
    data = b"".join(
        part.ljust(-(-len(part) // 512) * 512, b"-") for part in (b"a" * 100, b"b" * 600)
    )
    stream = info.tobuf(tarfile.PAX_FORMAT) + data + b"c" * 48 + bytes(464 + 1024)
    (tmp_path / "image.tar").write_bytes(stream)
    run(["tar", "-xf", tmp_path / "image.tar", "-C", tmp_path])
    require_same(member_of(stream), stream, (tmp_path / "image").read_bytes())
