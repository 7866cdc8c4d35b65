"""Images in every form that real tools write: the same bytes as the raw one, until they change."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from bundlefs.base.errors import FormError, ImageChangedError
from bundlefs.base.spans import Span
from bundlefs.image.forms import Form
from bundlefs.image.open import open_source
from bundlefs.image.raw import Image
from tests.stream.forms import descriptors, every_form, one_of_each, refused, whole
from tests.support import images, sources
from tests.support.changes import CHANGES
from tests.support.processes import children
from tests.support.sources import SIZE, Originals
from tests.support.tools import run

MIB = images.MIB


# --- the same bytes ---


@every_form
def test_reads_as_the_raw_image(
    form: str, make: Callable[[str], Path], content: bytes, spool: Path
) -> None:
    path = make(form)
    before = descriptors()
    with closing(open_source(path, spool_dir=spool)) as source:
        assert source.size == SIZE
        assert source.path == path
        assert whole(source) == content
        assert source.bytes_read == SIZE
        for offset, length in [(0, 0), (0, 1), (SIZE - 1, 1), (SIZE, 0), (2 * MIB, 5 * MIB + 1)]:
            assert source.read(offset, length) == content[offset : offset + length]
        assert not list(spool.iterdir())
    source.close()
    assert descriptors() == before
    assert children(os.getpid()) == []


@every_form
def test_extents_leave_out_nothing_but_zeros(
    form: str, make: Callable[[str], Path], content: bytes
) -> None:
    with closing(open_source(make(form))) as source:
        found = source.extents()
    edges = [edge for span in found for edge in (span.start, span.stop)]
    assert edges == sorted(set(edges))
    rebuilt = bytearray(SIZE)
    for span in found:
        rebuilt[span.start : span.stop] = content[span.start : span.stop]
    assert rebuilt == content
    if form.startswith(("gzip", "pigz")):
        assert found == (Span(0, SIZE),)
    # The blocks of the others are larger than the holes.
    elif not form.startswith("vhd"):
        assert sum(span.length for span in found) < 8 * MIB, "holes are found"


@one_of_each
def test_many_threads_read_at_random(
    form: str, make: Callable[[str], Path], content: bytes
) -> None:
    random = Random(form)  # noqa: S311  # which offsets are read keeps no secret
    offsets = [random.randrange(SIZE) for _ in range(200)]

    def agrees(offset: int) -> bool:
        length = min(100_000, SIZE - offset)
        return source.read(offset, length) == content[offset : offset + length]

    with closing(open_source(make(form))) as source, ThreadPoolExecutor(8) as threads:
        assert all(threads.map(agrees, offsets))


@one_of_each
def test_the_identity_is_the_files_and_the_size_the_images(
    form: str, make: Callable[[str], Path]
) -> None:
    path = make(form)
    with closing(open_source(path)) as source, Image.open(path) as file:
        assert source.identity.size == SIZE != file.size
        assert source.identity.inode == file.identity.inode
        assert source.identity.mtime_ns == file.identity.mtime_ns
        assert source.identity.ctime_ns == file.identity.ctime_ns


def test_raw_stays_raw(raw: Path, content: bytes) -> None:
    with closing(open_source(raw)) as source:
        assert isinstance(source, Image)
        assert whole(source) == content


@one_of_each
def test_taken_as_raw_if_told(form: str, make: Callable[[str], Path]) -> None:
    path = make(form)
    with closing(open_source(path, raw=True)) as source:
        assert isinstance(source, Image)
        assert source.size == path.stat().st_size


@pytest.mark.parametrize(
    "head", [b"\x1f\x8b\x07", b"BZh9 boot", b"\xfd7zXY\0", b"(\xb5/\xfe", b"QFI\xfa", b"K"]
)
def test_what_only_looks_alike_is_raw(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(head)
    with closing(open_source(path)) as source:
        assert isinstance(source, Image)


@contextmanager
def device(path: Path) -> Iterator[Path]:
    """Show a file as a block device, in whole sectors."""
    os.truncate(path, -(-path.stat().st_size // 512) * 512)
    name = run(["losetup", "--find", "--show", path]).decode().strip()
    try:
        yield Path(name)
    finally:
        run(["losetup", "--detach", name])


def test_a_block_device_is_raw(originals: Originals, content: bytes, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(originals.raw, tmp_path / "copy"))
    with device(copy) as path, closing(open_source(path)) as source:
        assert isinstance(source, Image)
        assert whole(source) == content


@one_of_each
def test_on_a_block_device_nothing_else_is_read_unless_told(
    form: str, make: Callable[[str], Path], content: bytes
) -> None:
    """No change of it would be seen, and nothing tells where on it a file ends."""
    name = form.removesuffix("-stream")
    with device(make(form)) as path:
        message = refused(path)
        assert f"on device {path} is {name}, not a raw image" in message
        assert str(path) in message.rpartition(": ")[2], "a command that helps"
        with closing(open_source(path, raw=True)) as source:
            assert isinstance(source, Image)
        if form in READ_ON_DEVICES:
            with closing(open_source(path, form=Form(name))) as source:
                assert whole(source) == content


READ_ON_DEVICES = ["qcow2", "vmdk", "vdi", "vhd", "vhd-fixed", "vhdx", "ova", "gzip", "bzip2"]


@one_of_each
def test_the_form_that_is_asked_for(form: str, make: Callable[[str], Path], raw: Path) -> None:
    name = form.removesuffix("-stream")
    open_source(make(form), form=Form(name)).close()
    with pytest.raises(FormError, match=f"is {name}, not {'vdi' if form == 'xz' else 'xz'}$"):
        open_source(make(form), form=Form.VDI if form == "xz" else Form.XZ)
    with pytest.raises(FormError, match=f"image {raw} is raw, not {name}$"):
        open_source(raw, form=Form(name))


# --- a file that changes ---


def stay(_: Path) -> None:
    """Change nothing more."""


def spoil(path: Path) -> None:
    sources.flip(path, path.stat().st_size // 2)


@one_of_each
@pytest.mark.parametrize("change", [spoil, *CHANGES])
def test_changed_while_open(
    form: str, change: Callable[[Path], None], make: Callable[[str], Path]
) -> None:
    """For good: put back as it was, with its time, it is another file by its ctime."""
    path = make(form)
    was, times = path.read_bytes(), path.stat()
    with closing(open_source(path)) as source:
        source.read(0, 100)
        for _ in range(2):
            change(path)
            for offset in (0, 5 * MIB, SIZE - 1):
                with pytest.raises(ImageChangedError, match="was changed while in use"):
                    source.read(offset, 1)
            with pytest.raises(ImageChangedError):
                source.extents()
            path.write_bytes(was)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            change = stay
