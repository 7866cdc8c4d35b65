"""GNU tar itself is the oracle: the same bytes for the same file, and our stream undone by it."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from bundlefs.base.spans import Span
from bundlefs.codec.tar import Literal, TarLayout, layout
from bundlefs.image.raw import Image

MTIME = 1_700_000_000
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
# More than any file system's granularity for holes, and enough of them that `tar -S` takes
# notice: it compares allocated blocks, which also hold the extent tree.
STEP = 128 * KIB

COMMON = ["--format=gnu", "--owner=root:0", "--group=root:0", "--mode=0644"]
SPARSE = ["-S", "--hole-detection=seek"]


def gnu_tar(path: Path, *options: str, mtime: int = MTIME) -> bytes:
    command = ["tar", *COMMON, f"--mtime=@{mtime}", *options, "-cf", "-", "--", path.name]
    return subprocess.run(command, cwd=path.parent, check=True, capture_output=True).stdout


def gnu_tar_start(path: Path, *options: str) -> bytes:
    """Return the header alone: a whole stream of gibibytes of zeros would show nothing more."""
    command = ["tar", *COMMON, f"--mtime=@{MTIME}", *options, "-cf", "-", "--", path.name]
    with subprocess.Popen(
        command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        header = process.stdout.read(512)
        process.kill()
    return header


def make(path: Path, size: int, extents: Sequence[Span]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for extent in extents:
            file.seek(extent.start)
            file.write(Random(extent.start).randbytes(extent.length))
    return path


def our_tar(path: Path) -> tuple[TarLayout, bytes]:
    with Image.open(path) as image:
        tar = layout(path.name, image.size, MTIME, image.extents())
        return tar, b"".join(
            piece.data
            if isinstance(piece, Literal)
            else image.read(piece.span.start, piece.span.length)
            for piece in tar.pieces(Span(0, tar.size))
        )


def every_other(count: int, *, first: int = 0) -> list[Span]:
    starts = ((2 * n + first) * STEP for n in range(count))
    return [Span(start, start + STEP // 2) for start in starts]


@pytest.mark.parametrize(
    "size", [1, 511, 512, 513, 8703, 8704, 8705, 10 * KIB, MIB - 1, MIB, MIB + 1]
)
def test_file_without_holes(tmp_path: Path, size: int) -> None:
    path = make(tmp_path / "image", size, [Span(0, size)])
    tar, stream = our_tar(path)
    assert not tar.sparse
    assert stream == gnu_tar(path) == gnu_tar(path, *SPARSE)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 23, 24, 25, 26, 46, 300])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("tail", ["hole", "data", "unaligned data", "unaligned hole"])
def test_sparse_shapes(tmp_path: Path, count: int, first: int, tail: str) -> None:
    extents = every_other(count, first=first)
    end = extents[-1].stop
    size = {"hole": end + STEP, "unaligned hole": end + STEP + 77}.get(tail, end)
    if tail == "unaligned data":
        extents.append(Span(end + STEP, size := end + STEP + 4999))
    elif count == 1 and first == 0 and tail == "data":
        extents.append(Span(end + STEP, size := end + 2 * STEP))  # else there would be no hole
    path = make(tmp_path / "image", size, extents)
    with Image.open(path) as image:
        assert len(image.extents()) == len(extents)
    tar, stream = our_tar(path)
    assert tar.sparse
    assert stream == gnu_tar(path, *SPARSE)


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000, MIB, 8 * GIB - 1, 8 * GIB, 12 * GIB])
def test_only_a_hole(tmp_path: Path, size: int) -> None:
    path = make(tmp_path / "image", size, [])
    tar, stream = our_tar(path)
    assert tar.sparse == (size >= 512)
    assert stream == gnu_tar(path, *SPARSE)


@pytest.mark.parametrize("tail", [1, 511, 512, 513])
@pytest.mark.parametrize("first", [0, STEP])
def test_small_hole_at_the_end(tmp_path: Path, first: int, tail: int) -> None:
    path = make(tmp_path / "image", first + STEP + tail, [Span(first, first + STEP)])
    tar, stream = our_tar(path)
    assert tar.sparse
    assert stream == gnu_tar(path, *SPARSE)


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 9 * GIB + 5])
def test_data_around_eight_gibibytes(tmp_path: Path, size: int) -> None:
    """Offsets and the real size turn to base-256 there."""
    extents = [Span(MIB, 2 * MIB), Span(8 * GIB - 2 * STEP, 8 * GIB - STEP)]
    if size > 8 * GIB:
        extents.append(Span(8 * GIB, 8 * GIB + STEP))
    path = make(tmp_path / "image", size, extents)
    tar, stream = our_tar(path)
    assert tar.sparse
    assert stream == gnu_tar(path, *SPARSE)


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 9 * GIB + 5])
def test_plain_header_around_eight_gibibytes(tmp_path: Path, size: int) -> None:
    path = make(tmp_path / "image", size, [])
    assert layout("image", size, MTIME, None).head == gnu_tar_start(path)


@pytest.mark.parametrize("name", ["a", "x" * 100, "ü" * 50, "with space", "-dash"])
def test_names(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, 5, [Span(0, 5)])
    _, stream = our_tar(path)
    assert stream == gnu_tar(path)


@pytest.mark.parametrize("mtime", [0, 8**11 - 1, 8**11, -5])
def test_times(tmp_path: Path, mtime: int) -> None:
    path = make(tmp_path / "image", 5, [Span(0, 5)])
    assert gnu_tar(path, mtime=mtime)[:512] == layout("image", 5, mtime, None).head


def test_gnu_tar_undoes_extents_that_no_aligned_file_system_gives(tmp_path: Path) -> None:
    extents = [Span(1, 2), Span(700, 1300), Span(5000, 5512), Span(9999, 11_111)]
    content = bytearray(13_001)
    for extent in extents:
        content[extent.start : extent.stop] = Random(extent.start).randbytes(extent.length)
    tar = layout("image", len(content), MTIME, extents)
    stream = b"".join(
        piece.data if isinstance(piece, Literal) else content[piece.span.start : piece.span.stop]
        for piece in tar.pieces(Span(0, tar.size))
    )
    subprocess.run(["tar", "-xSf", "-"], cwd=tmp_path, input=stream, check=True)
    assert tar.sparse
    assert (tmp_path / "image").read_bytes() == content
