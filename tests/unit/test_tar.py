"""The tar layout against Python's tarfile, which knows nothing of it, and against slices."""
# ruff: noqa: S311 (noise as test data keeps no secret)

import io
import tarfile
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.errors import InconsistentError, UsageError
from bundlefs.base.spans import Span
from bundlefs.codec.tar import RECORD, FromImage, Literal, TarLayout, layout
from bundlefs.codec.tar_format import BLOCK

MTIME = 1_700_000_000
GIB = 1 << 30


def assemble(tar: TarLayout, span: Span, image: bytes) -> bytes:
    return b"".join(
        piece.data if isinstance(piece, Literal) else image[piece.span.start : piece.span.stop]
        for piece in tar.pieces(span)
    )


def stream_of(tar: TarLayout, image: bytes) -> bytes:
    return assemble(tar, Span(0, tar.size), image)


def image_with(extents: Sequence[Span], size: int) -> bytes:
    image = bytearray(size)
    for extent in extents:
        image[extent.start : extent.stop] = Random(extent.start).randbytes(extent.length)
    return bytes(image)


def unpack(stream: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Undo a stream by Python's tarfile as OpenStack uses it: a pipe that cannot seek."""
    with tarfile.open(fileobj=io.BytesIO(stream), mode="r|") as archive:
        member = archive.next()
        assert member is not None
        content = archive.extractfile(member)
        assert content is not None
        data = content.read()
        assert archive.next() is None
    return member, data


def stock_header(name: str, size: int, mtime: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, mtime
    member.uname = member.gname = "root"
    return member.tobuf(tarfile.GNU_FORMAT)


@st.composite
def sparse_images(draw: st.DrawFn) -> tuple[tuple[Span, ...], int]:
    """Extents of any alignment, also ones that touch, and the size of the image."""
    at = 0
    extents = []
    unit = draw(st.sampled_from([1, 100, BLOCK]))
    for gap, length in draw(
        st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=60)
    ):
        start = at + gap * unit
        at = start + length * unit
        extents.append(Span(start, at))
    return tuple(extents), at + draw(st.integers(0, 3000))


@given(sparse_images(), st.data())
def test_any_span_is_that_slice_of_the_stream(
    case: tuple[tuple[Span, ...], int], data: st.DataObject
) -> None:
    extents, size = case
    image = image_with(extents, size)
    tar = layout("image", size, MTIME, extents)
    stream = stream_of(tar, image)
    start = data.draw(st.integers(0, len(stream)))
    span = Span(start, data.draw(st.integers(start, len(stream) + 5)))
    assert assemble(tar, span, image) == stream[span.start : span.stop]
    assert all(piece.length > 0 for piece in tar.pieces(span))


@given(sparse_images())
def test_stock_tarfile_undoes_the_stream(case: tuple[tuple[Span, ...], int]) -> None:
    extents, size = case
    image = image_with(extents, size)
    tar = layout("image", size, MTIME, extents)
    stream = stream_of(tar, image)
    assert len(stream) == tar.size
    assert tar.size % RECORD == 0
    member, data = unpack(stream)
    assert data == image
    assert (member.name, member.mode, member.mtime) == ("image", 0o644, MTIME)
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "root", "root")
    assert tar.sparse == (member.type == tarfile.GNUTYPE_SPARSE)


@given(sparse_images())
def test_holes_are_never_read(case: tuple[tuple[Span, ...], int]) -> None:
    extents, size = case
    tar = layout("image", size, MTIME, extents)
    read = {
        offset // BLOCK
        for piece in tar.pieces(Span(0, tar.size))
        if isinstance(piece, FromImage)
        for offset in range(piece.span.start, piece.span.stop)
    }
    data = {offset // BLOCK for extent in extents for offset in range(extent.start, extent.stop)}
    assert read == data or size < BLOCK


@pytest.mark.parametrize(
    "size",
    [0, 1, 511, 512, 513]
    + [RECORD * records - 3 * BLOCK + more for records in (1, 2) for more in (-1, 0, 1)],
)
@pytest.mark.parametrize("given_extents", [True, False])
def test_plain_stream_on_the_grid(size: int, given_extents: bool) -> None:  # noqa: FBT001 (parametrized)
    image = Random(size).randbytes(size)
    tar = layout(
        "image", size, MTIME, ((Span(0, size),) if size else ()) if given_extents else None
    )
    naive = stock_header("image", size, MTIME) + image
    naive += bytes(-len(naive) % BLOCK + 2 * BLOCK)
    naive += bytes(-len(naive) % RECORD)
    assert stream_of(tar, image) == naive
    assert not tar.sparse
    assert tar.image_size == size


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 1 << 50])
def test_plain_header_of_huge_sizes(size: int) -> None:
    tar = layout("image", size, MTIME, None)
    assert tar.head == stock_header("image", size, MTIME)
    end = len(tar.head) + size
    assert list(tar.pieces(Span(end - 3, end))) == [FromImage(Span(size - 3, size))]
    assert {
        *b"".join(p.data for p in tar.pieces(Span(end, tar.size)) if isinstance(p, Literal))
    } == {0}


@pytest.mark.parametrize("mtime", [0, 8**11 - 1, 8**11, -1])
def test_any_mtime_fits(mtime: int) -> None:
    assert layout("image", 5, mtime, None).head == stock_header("image", 5, mtime)


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 1 << 50])
def test_sparse_map_of_huge_sizes(size: int) -> None:
    extents = (Span(0, BLOCK), Span((size - BLOCK) // BLOCK * BLOCK, size))
    tar = layout("image", size, MTIME, extents)
    stream = io.BytesIO(tar.head + bytes(tar.size - len(tar.head)))
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        member = archive.next()
    assert member is not None
    assert member.size == size
    # One entry is the end of the file, one is unused. Typeshed declares the map as bytes.
    found: object = member.sparse
    assert found == [*((e.start, e.length) for e in extents), (size, 0), (0, 0)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 23, 24, 25, 26, 45, 46])
def test_the_map_grows_by_a_block_when_it_is_full(count: int) -> None:
    extents = [Span(2 * n * BLOCK, (2 * n + 1) * BLOCK) for n in range(count)]
    tar = layout("image", 2 * count * BLOCK, MTIME, extents)
    entries = count + 1  # and the end of the file
    extensions = 0 if entries <= 4 else -((4 - entries) // 21)
    assert len(tar.head) == BLOCK * (1 + extensions)


def test_an_image_that_is_all_hole_has_no_data() -> None:
    tar = layout("image", 8 * GIB, MTIME, ())
    assert tar.sparse
    assert tar.size == RECORD
    assert not [piece for piece in tar.pieces(Span(0, tar.size)) if isinstance(piece, FromImage)]


def test_a_hole_inside_one_block_is_none() -> None:
    """512 bytes are the least that a map can leave out between two extents."""
    assert not layout("image", 1500, MTIME, (Span(0, 600), Span(900, 1500))).sparse


@pytest.mark.parametrize(("size", "sparse"), [(511, False), (512, True)])
def test_an_image_of_less_than_a_block_is_plain(size: int, sparse: bool) -> None:  # noqa: FBT001 (parametrized)
    assert layout("image", size, MTIME, ()).sparse == sparse


def test_a_hundred_thousand_extents() -> None:
    extents = [Span(4096 * 2 * n, 4096 * (2 * n + 1)) for n in range(100_000)]
    tar = layout("image", 4096 * 200_000, MTIME, extents)
    for n in (0, 1, 54_321, 99_999):
        at = len(tar.head) + 4096 * n
        assert list(tar.pieces(Span(at, at + 4096))) == [FromImage(extents[n])]
    at = len(tar.head) + 4096 * 99_999
    assert list(tar.pieces(Span(at - 6, at + 6))) == [
        FromImage(Span(extents[-2].stop - 6, extents[-2].stop)),
        FromImage(Span(extents[-1].start, extents[-1].start + 6)),
    ]


def test_a_name_of_a_hundred_bytes_fits() -> None:
    name = "ü" * 50
    assert layout(name, 5, MTIME, None).head == stock_header(name, 5, MTIME)


@pytest.mark.parametrize("name", ["", "x" * 101, "ü" * 50 + "x", "a\0b"])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(UsageError, match="give one of 1 to 100 bytes"):
        layout(name, 5, MTIME, None)


@pytest.mark.parametrize(
    "extents",
    [
        (Span(512, 1024), Span(0, 512)),
        (Span(0, 1024), Span(512, 2048)),
        (Span(0, 4097),),
        (Span(-512, 512),),
        (Span(512, 512),),
    ],
)
def test_extents_that_cannot_be(extents: tuple[Span, ...]) -> None:
    with pytest.raises(InconsistentError, match="extent"):
        layout("image", 4096, MTIME, extents)
