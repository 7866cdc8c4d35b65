"""What is written to a `BundleWriter` is a bundle, whatever the pieces; nothing else ever is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundlefs import BundlefsError, BundleWriter, MemorySink
from bundlefs.base.errors import UsageError
from bundlefs.state.index import PART_SIZE
from tests import reference
from tests.stream.badsinks import NotingSink, parts_in
from tests.stream.engine import CREATED, SECRET, Setting, manifest_of, opened, read_parts
from tests.stream.writers import METADATA, bundled, writer
from tests.support import images

KIB = 1 << 10
MIB = 1 << 20
TAR_HEADER = 512


def undone(sink: MemorySink) -> bytes:
    """Give the tar stream of a bundle."""
    return reference.unbundle(parts_in(sink.files), SECRET.key, SECRET.iv)


def expected_tar(image: bytes) -> bytes:
    return reference.tar_stream(image, "image", CREATED)


# --- the bytes ---


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(
    "size",
    [1, 511, 512, 513, 9 * KIB, MIB - TAR_HEADER - 1, MIB - TAR_HEADER, MIB - TAR_HEADER + 1,
     MIB, 2 * MIB, 10 * MIB, 11 * MIB + 3],
)  # fmt: skip
def test_any_size_is_what_python_archives(size: int, level: int) -> None:
    image = b"".join(images.noise(size))
    sink = bundled(image, [], level)
    assert undone(sink) == expected_tar(image)
    parts = parts_in(sink.files)
    assert {len(part) for part in parts[:-1]} <= {PART_SIZE}
    assert 0 < len(parts[-1]) <= PART_SIZE


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 3 * MIB),
    cuts=st.lists(st.integers(0, 3 * MIB), max_size=12),
    jobs=st.integers(1, 4),
)
@example(size=MIB - TAR_HEADER, cuts=[MIB - TAR_HEADER], jobs=1)
@example(size=2 * MIB, cuts=[MIB - TAR_HEADER, MIB - TAR_HEADER], jobs=1)
def test_any_pieces_give_the_same(size: int, cuts: list[int], jobs: int) -> None:
    image = images.text(size)
    pieces = sorted(min(cut, size) for cut in cuts)
    sink = bundled(image, pieces, jobs=jobs)
    assert undone(sink) == expected_tar(image)


def test_pieces_of_every_size_give_the_same_parts() -> None:
    image = b"".join(images.noise(PART_SIZE + 300 * KIB))
    whole = bundled(image, []).files
    for piece in (4093, MIB - 1, MIB, 4 * MIB + 1):
        assert bundled(image, list(range(piece, len(image), piece))).files == whole


def test_single_bytes_are_taken() -> None:
    image = images.text(70_001)
    assert undone(bundled(image, list(range(1, len(image))))) == expected_tar(image)


@pytest.mark.parametrize(
    "form",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(data).cast("I"),
        lambda data: memoryview(b"__" + data)[2:],
    ],
)
def test_any_bytes_like_is_taken(form: Callable[[bytes], bytes]) -> None:
    image = images.text(2 * MIB + 4)
    sink = MemorySink()
    with writer(len(image), sink) as bundle:
        assert bundle.write(form(image[:MIB])) == MIB
        assert bundle.write(form(b"")) == 0
        assert bundle.write(form(image[MIB:])) == MIB + 4
    assert undone(sink) == expected_tar(image)


def test_a_buffer_may_be_used_again_at_once() -> None:
    image = b"".join(images.noise(3 * MIB))
    buffer = bytearray(100_000)
    sink = MemorySink()
    with writer(len(image), sink) as bundle:
        for start in range(0, len(image), len(buffer)):
            piece = image[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            bundle.write(memoryview(buffer)[: len(piece)])
            buffer[:] = bytes(len(buffer))
            # A buffer that something still looks into could not grow.
            buffer.append(0)
            del buffer[-1]
    assert undone(sink) == expected_tar(image)


@pytest.mark.parametrize("level", [0, 1, 6])
def test_it_writes_what_a_mount_shows(mixed: Path, level: int) -> None:
    sink = bundled(mixed.read_bytes(), [5 * MIB], level)
    with opened(mixed, Setting(level=level, sparse=False)) as bundle:
        assert parts_in(sink.files) == read_parts(bundle)


def test_its_manifest_says_what_that_of_a_mount_says(mixed: Path) -> None:
    sink = MemorySink()
    with writer(mixed.stat().st_size, sink) as bundle:
        bundle.write(mixed.read_bytes())
    assert bundle.write_manifest(METADATA) == "image.manifest.xml"
    with opened(mixed, Setting(level=1, sparse=False)) as shown:
        theirs = manifest_of(shown)
    ours = sink.files["image.manifest.xml"].decode()
    assert without_random(ours) == without_random(theirs)
    assert "<filename>image.part.01</filename>" in ours


def without_random(manifest: str) -> str:
    """Cut out what is encrypted, which never comes out twice the same, and its signature."""
    for name in ("ec2_encrypted_key", "ec2_encrypted_iv", "user_encrypted_key",
                 "user_encrypted_iv", "signature"):  # fmt: skip
        head, tag, rest = manifest.partition(f"<{name}")
        assert tag, name
        manifest = head + rest[rest.index(f"</{name}>") :]
    return manifest


def test_every_bundle_has_a_secret_of_its_own() -> None:
    once, again = MemorySink(), MemorySink()
    for sink in (once, again):
        with BundleWriter("image", 100, sink) as bundle:
            bundle.write(bytes(100))
    assert once.files != again.files


# --- how many bytes ---


@pytest.mark.parametrize("written", [0, 1, 99])
def test_fewer_bytes_are_refused_at_the_end(written: int) -> None:
    sink = NotingSink()
    bundle = writer(100, sink)
    bundle.write(bytes(written))
    with pytest.raises(BundlefsError, match=rf"^{written} bytes .*announced is 100$"):
        bundle.close()
    assert (sink.files, sink.loose) == ({}, [])


@pytest.mark.parametrize("before", [0, 60, 100])
def test_more_bytes_are_refused_at_once(before: int) -> None:
    sink = MemorySink()
    with writer(100, sink) as bundle:
        bundle.write(bytes(before))
        with pytest.raises(BundlefsError, match=r"^101 bytes .*announced is 100$"):
            bundle.write(bytes(101 - before))
        # Nothing of it was taken, so that the rest may still come.
        bundle.write(bytes(100 - before))
    assert undone(sink) == expected_tar(bytes(100))


@pytest.mark.parametrize("size", [0, -1, -(1 << 40)])
def test_no_image_is_that_small(size: int) -> None:
    with pytest.raises(UsageError, match=f"1 byte or more, not {size}"):
        BundleWriter("image", size, MemorySink())


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "/x", ".", "..", ".x", "a\nb", "a\0b", "x" * 101]
)
def test_a_name_is_one_of_files(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        BundleWriter(name, 1, MemorySink())


@pytest.mark.parametrize("level", [-1, 10])
def test_levels_are_0_to_9(level: int) -> None:
    with pytest.raises(UsageError, match="level"):
        BundleWriter("image", 1, MemorySink(), level=level)


@pytest.mark.parametrize("jobs", [0, -1])
def test_somebody_must_work(jobs: int) -> None:
    with pytest.raises(UsageError, match="thread"):
        BundleWriter("image", 1, MemorySink(), jobs=jobs)
