"""Images in every form that real tools write: the same bytes as the raw one, or one clear error."""

import errno
import logging
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from bundlefs.base import progress
from bundlefs.base.errors import FormError, ImageChangedError, ImageError, InconsistentError
from bundlefs.base.spans import Span
from bundlefs.image import gzipped
from bundlefs.image.forms import Form
from bundlefs.image.open import open_source
from bundlefs.image.raw import Image
from bundlefs.image.source import Source
from tests.support import images, sources
from tests.support.changes import CHANGES
from tests.support.processes import children, disk_server, ended
from tests.support.sources import SIZE, Originals
from tests.support.tools import run, tool

MIB = images.MIB

every_form = pytest.mark.parametrize("form", sources.ALL)
ONE_OF_EACH = [
    "gzip",
    "bzip2",
    "xz",
    "zstd",
    "qcow2",
    "vmdk",
    "vmdk-stream",
    "vdi",
    "vhd",
    "vhdx",
    "ova",
]
one_of_each = pytest.mark.parametrize("form", ONE_OF_EACH)
COMPRESSED = ["gzip", "bzip2", "xz", "zstd"]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def raw(originals: Originals) -> Path:
    return originals.raw


@pytest.fixture(scope="session")
def content(originals: Originals) -> bytes:
    return originals.raw.read_bytes()


@pytest.fixture
def make(originals: Originals, tmp_path: Path) -> Callable[[str], Path]:
    return lambda form: originals.copy(form, tmp_path / "image")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


def whole(source: Source) -> bytes:
    return b"".join(
        source.read(offset, min(MIB, source.size - offset)) for offset in range(0, source.size, MIB)
    )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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


# --- what is refused ---


def refused(path: Path, spool_dir: Path | None = None) -> str:
    before = descriptors()
    with pytest.raises(ImageError) as caught:
        open_source(path, spool_dir=spool_dir)
    assert descriptors() == before
    assert children(os.getpid()) == []
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@one_of_each
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_short(form: str, share: float, make: Callable[[str], Path]) -> None:
    path = make(form)
    os.truncate(path, int(path.stat().st_size * share))
    message = refused(path)
    assert re.search("cut short|damaged", message)


@pytest.mark.parametrize("form", COMPRESSED)
def test_cut_short_by_a_byte_or_after_the_signature(form: str, make: Callable[[str], Path]) -> None:
    path = make(form)
    os.truncate(path, path.stat().st_size - 1)
    assert "it is cut short" in refused(path)
    os.truncate(path, 11)
    assert "it is cut short" in refused(path)


@pytest.mark.parametrize("form", COMPRESSED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_bit_is_wrong(form: str, share: float, make: Callable[[str], Path]) -> None:
    path = make(form)
    sources.flip(path, int(path.stat().st_size * share))
    assert f"({form}): it is damaged" in refused(path)


LEFT_OUT = "{} bytes behind the {} data are none of it, and are left out, as {} does"
GARBAGE = pytest.mark.parametrize(
    "garbage", [b"x", b"\0\0\0x", b"garbage" * 1000, b'{"metadata_version": "1.0"}FWx0\1\2\3\4']
)


@pytest.mark.parametrize("form", ["xz", "zstd"])
@GARBAGE
def test_something_else_behind_it(form: str, garbage: bytes, make: Callable[[str], Path]) -> None:
    """`xz` and `zstd` refuse it too."""
    path = make(form)
    with path.open("ab") as stream:
        stream.write(garbage)
    assert re.search(rf"\({form}\): (it is |3 zero bytes)", refused(path))


@pytest.mark.parametrize("form", ["xz", "zstd"])
@pytest.mark.parametrize("garbage", [b"x", b"\0" * 512, b"FWx0\1\2", b"\xff" * (2 * MIB)])
def test_how_to_leave_out_what_is_behind_it(
    form: str, garbage: bytes, make: Callable[[str], Path], tmp_path: Path, content: bytes
) -> None:
    if form == "xz" and not garbage.strip(b"\0"):
        garbage += b"x"
    path = make(form).rename(tmp_path / "my image")
    size = path.stat().st_size
    with path.open("ab") as stream:
        stream.write(garbage)
    said = refused(path)
    # Padding of xz streams belongs to them.
    end = size + len(garbage) - len(garbage.lstrip(b"\0")) if form == "xz" else size
    rest = size + len(garbage) - end
    assert f"it is followed by {rest} bytes that are none of it, from byte {end} on" in said
    assert "damaged" not in said
    command = said.partition("leave them out: ")[2].partition(";")[0]
    run(["sh", "-c", f"cd {shlex.quote(str(tmp_path))} && {command}"])
    with closing(open_source(tmp_path / f"disk.{form}")) as source:
        assert whole(source) == content


@pytest.mark.parametrize("form", ["gzip", "gzip-members", "bzip2", "bzip2-members"])
@GARBAGE
def test_something_else_that_its_tool_leaves_out(
    form: str,
    garbage: bytes,
    originals: Originals,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As gunzip and bunzip2 do, with a warning."""
    path, kept = originals.copy(form, tmp_path / "image"), tmp_path / "points"
    packed, content = form.removesuffix("-members"), originals.raw.read_bytes()
    with path.open("ab") as stream:
        stream.write(garbage)
    unpack = {"gzip": "gunzip", "bzip2": "bunzip2"}[packed]
    with path.open("rb") as stream:
        oracle = subprocess.run(
            [tool(unpack), "-c"], stdin=stream, capture_output=True, check=False
        )
    # A single byte has gunzip miss the rest of a header.
    assert re.search(rb"trailing garbage|unexpected end", oracle.stderr)
    assert oracle.stdout == content
    for _ in range(2):
        with closing(open_source(path, kept=kept)) as source:
            assert source.size == SIZE
            assert whole(source) == content
    warnings = {record.message for record in caplog.records if record.levelno == logging.WARNING}
    length = len(garbage.lstrip(b"\0")) if packed == "gzip" else len(garbage)
    assert warnings == {f"image {path}: {LEFT_OUT.format(length, packed, unpack)}"}


@pytest.mark.parametrize("form", ["gzip", "bzip2"])
@pytest.mark.parametrize("damage", [*range(10), "cut 1", "cut 2", "cut 9", "cut 20"])
def test_a_second_member_that_is_damaged_is_not_left_out(
    form: str, damage: int | str, originals: Originals, tmp_path: Path
) -> None:
    """Were it taken for something else, the image would be half of what it was."""
    path = tmp_path / "image"
    half = originals.raw.read_bytes()[: SIZE // 2]
    first, second = (bytearray(run([form, "-c"], data=half)) for _ in range(2))
    if isinstance(damage, str):
        second = second[: int(damage.split()[1])]
    elif form == "gzip" and damage > 3:
        second[10 + damage] ^= 4  # behind the header, whose other fields say nothing
    else:
        second[damage] ^= 4
    path.write_bytes(first + second)
    assert re.search(rf"\({form}\): (it is (damaged|cut short)|a damaged member)", refused(path))


@pytest.mark.parametrize("form", ["gzip", "bzip2"])
def test_what_is_too_much_to_be_left_out(form: str, make: Callable[[str], Path]) -> None:
    """A member in the middle whose beginning is gone, and one behind something else."""
    path = make(form)
    member = path.read_bytes()
    path.write_bytes(member + b"garbage" + member)
    assert "there is a member behind something else" in refused(path)
    path.write_bytes(member + b"g" * (2 * MIB))
    assert f"too much of it to be left out, {2 * MIB} bytes" in refused(path)


def test_padding_that_xz_does_not_allow(make: Callable[[str], Path]) -> None:
    path = make("xz")
    with path.open("ab") as stream:
        stream.write(bytes(3))
    assert "3 zero bytes are between or behind its streams" in refused(path)


@pytest.mark.parametrize("form", COMPRESSED)
def test_how_far_it_is_while_it_is_unpacked(form: str, make: Callable[[str], Path]) -> None:
    path, seen = make(form), list[tuple[object, int, bool]]()
    progress.observe(lambda wait: seen.append((wait.name, wait.done, wait.over)))
    try:
        open_source(path).close()
    finally:
        progress.observe(None)
    assert {name for name, _, _ in seen} == {path}
    done = [each for _, each, _ in seen]
    assert done == sorted(done)
    assert done[-1] == path.stat().st_size
    assert [over for _, _, over in seen] == [False] * (len(seen) - 1) + [True]


@pytest.mark.parametrize("form", COMPRESSED)
def test_empty_inside(form: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(run([form, "-c"], data=b""))
    assert f"the {form} file is empty inside (0 bytes)" in refused(path)


@pytest.mark.parametrize("form", COMPRESSED)
def test_what_is_inside_is_no_raw_image(form: str, raw: Path, tmp_path: Path) -> None:
    inner, path = tmp_path / "inner", tmp_path / "image"
    run(["qemu-img", "convert", "-O", "qcow2", raw, inner])
    path.write_bytes(run([form, "-1", "-c", inner]))
    assert f"inside the {form} file is qcow2, not a raw image" in refused(path)
    run(["tar", "-cf", inner, "-C", raw.parent, raw.name])
    path.write_bytes(run([form, "-1", "-c", inner]))
    assert f"inside the {form} file is a tar archive, not a raw image" in refused(path)


def test_a_window_larger_than_is_usual(tmp_path: Path) -> None:
    path = tmp_path / "image"
    # Of an input whose size it knows zstd makes no larger window.
    with subprocess.Popen([tool("cat"), "/dev/zero"], stdout=subprocess.PIPE) as zeros:
        head = subprocess.Popen(
            [tool("head"), "-c", "1000000"], stdin=zeros.stdout, stdout=subprocess.PIPE
        )
        assert zeros.stdout is not None
        zeros.stdout.close()
        with head, path.open("wb") as file:
            subprocess.run(
                [tool("zstd"), "-q", "-1", "--long=28"], stdin=head.stdout, stdout=file, check=True
            )
    message = refused(path)
    assert "a window of 256 MiB, and no more than 128 MiB of memory" in message
    assert f"zstd -dc --long=31 {path} >disk.raw" in message
    assert "damaged" not in message


def test_a_window_of_a_frame_of_one_segment(tmp_path: Path) -> None:
    """Its size is that of the content."""
    path, zeros = tmp_path / "image", tmp_path / "zeros"
    images.sparse_image(zeros, 200 * MIB, {})
    run(["zstd", "-q", "-1", "--long=28", zeros, "-o", path])
    assert "a window of 200 MiB, and no more than 128 MiB" in refused(path)


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_dictionary_larger_than_is_usual(
    order: str, raw: Path, make: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "large"
    data = run(["xz", "--lzma2=preset=0,dict=512MiB", "-c"], data=raw.read_bytes()[:MIB])
    path.write_bytes((make("xz").read_bytes() if order == "second" else b"") + data)
    message = refused(path)
    assert "a dictionary of 512 MiB, and no more than 256 MiB of memory" in message
    assert f"xz -dc {path} >disk.raw" in message
    assert "damaged" not in message
    assert run(["xz", "-dc", path])[-MIB:] == raw.read_bytes()[:MIB], "and that command works"


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "no image" in refused(tmp_path / "missing")
    (tmp_path / "empty").touch()
    assert "is empty" in refused(tmp_path / "empty")
    assert "is a directory" in refused(tmp_path)


# --- a file that changes ---


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


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


# --- gzip: size and points are kept ---


def passes(caplog: pytest.LogCaptureFixture) -> int:
    return sum("finding its size" in record.message for record in caplog.records)


def test_a_second_time_needs_no_pass(
    make: Callable[[str], Path], content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, kept = make("gzip-members"), tmp_path / "state" / "points"
    with closing(open_source(path, kept=kept)) as source:
        assert whole(source) == content
    assert kept.stat().st_mode & 0o777 == 0o600
    assert passes(caplog) == 1
    saved = kept.read_bytes()
    with closing(open_source(path, kept=kept)) as source:
        assert source.size == SIZE
        assert source.read(SIZE - 512, 512) == content[-512:]
        assert whole(source) == content
    assert passes(caplog) == 1
    assert kept.read_bytes() == saved


def test_the_size_alone_is_kept_if_nothing_was_read(
    make: Callable[[str], Path], content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, kept = make("gzip"), tmp_path / "points"
    for _ in range(2):
        with closing(open_source(path, kept=kept)) as source:
            assert source.size == SIZE
    with closing(open_source(path, kept=kept)) as source:
        assert whole(source) == content
    assert passes(caplog) == 1


def test_what_was_kept_of_another_file_is_not_used(
    make: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, kept = make("gzip"), tmp_path / "points"
    with closing(open_source(path, kept=kept)) as source:
        whole(source)
    other = b"".join(images.noise(5 * MIB, "other"))
    path.write_bytes(run(["gzip", "-1"], data=other))
    for _ in range(2):
        with closing(open_source(path, kept=kept)) as source:
            assert whole(source) == other
    assert passes(caplog) == 2


@pytest.mark.parametrize(
    "damage", [lambda path: sources.flip(path, 50), append, lambda path: os.truncate(path, 7)]
)
def test_what_was_kept_is_damaged(
    damage: Callable[[Path], None],
    make: Callable[[str], Path],
    content: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, kept = make("gzip"), tmp_path / "points"
    for _ in range(2):
        with closing(open_source(path, kept=kept)) as source:
            assert whole(source) == content
        damage(kept)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"access points are made anew: the checksum of {kept} does not fit"]


def test_points_lie_further_apart_in_a_large_image(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[str], Path], content: bytes, tmp_path: Path
) -> None:
    path, kept = make("gzip"), tmp_path / "points"
    with closing(open_source(path, kept=kept)) as source:
        whole(source)
    dense = kept.stat().st_size
    kept.unlink()
    monkeypatch.setattr(gzipped, "_MOST_POINTS", 1)
    with closing(open_source(path, kept=kept)) as source:
        assert whole(source) == content
        assert source.read(SIZE - 100, 100) == content[-100:]
    assert kept.stat().st_size < dense - (32 << 10)


def test_a_gzip_file_on_a_disk_that_fails(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_source(make("gzip"))) as source:

        def fails(*_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(Image, "read", fails)
        with pytest.raises(OSError, match="Input/output error") as caught:
            source.read(5 * MIB, 1)
        assert caught.value.errno == errno.EIO


def test_a_gzip_file_that_does_not_unpack_as_before(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its times say that nothing changed: bits that rot. What comes out must not be used."""
    path, kept = make("gzip"), tmp_path / "points"
    with closing(open_source(path, kept=kept)):
        pass
    with closing(open_source(path, kept=kept)) as source:
        descriptor = os.open(path, os.O_RDONLY)
        bad = path.read_bytes()[:-2000] + bytes(2000)
        original = Image.read
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Image, "read", lambda _, start, length: bad[start : start + length])
                with pytest.raises(InconsistentError, match="cannot be unpacked again"):
                    source.read(SIZE - 100, 100)
            assert Image.read is original
        finally:
            os.close(descriptor)


# --- the spool ---


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder])
    try:
        yield folder
    finally:
        run(["umount", folder])


@pytest.mark.parametrize("form", ["bzip2", "xz", "zstd"])
def test_the_spool_is_full(form: str, make: Callable[[str], Path], spool: Path) -> None:
    path = make(form)
    with small_disk(spool, 3 * MIB) as folder:
        message = refused(path, spool_dir=folder)
        assert re.search(r"No space left on device after \d+ bytes; set TMPDIR", message)
        assert os.statvfs(folder).f_bfree * 4096 == 3 * MIB, "the space is given back"


def test_no_spool_folder(make: Callable[[str], Path], tmp_path: Path) -> None:
    message = refused(make("zstd"), spool_dir=tmp_path / "missing")
    assert f"into {tmp_path / 'missing'}: No such file or directory" in message


def test_tmpdir_names_the_spool(
    make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    assert f"into {tmp_path / 'elsewhere'}: No such file or directory; set TMPDIR" in refused(
        make("xz")
    )


def test_the_log_says_what_is_unpacked(
    make: Callable[[str], Path], spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = make("xz")
    open_source(path, spool_dir=spool).close()
    first, second = (record.message for record in caplog.records)
    size = path.stat().st_size
    assert first == (
        f"{path} (xz, {size} bytes) can only be read from its start: unpacking it into a nameless"
        f" file in {spool}"
    )
    found = re.fullmatch(rf".*: {SIZE} bytes, (\d+) of them written, the rest is zeros", second)
    assert found is not None
    assert 5 * MIB < int(found[1]) < 6 * MIB


# --- memory ---

BOMB = 512 << 20
PEAK = """
import sys
from contextlib import closing
from pathlib import Path
from bundlefs.image.open import open_source
with closing(open_source(sys.argv[1])) as source:
    assert source.size == int(sys.argv[2]), source.size
    assert not any(source.read(source.size - 4096, 4096))
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(*peak)
"""


@pytest.mark.parametrize("form", ["gzip", "bzip2", "zstd"])
def test_a_bomb_takes_no_memory(form: str, tmp_path: Path) -> None:
    path = images.sparse_image(tmp_path / "zeros", BOMB // 16, {})
    path.write_bytes(run([form, "-1", "-c", path]) * 16)
    assert path.stat().st_size < BOMB // 200
    peak = run([sys.executable, "-W", "ignore", "-c", PEAK, path, str(BOMB)])
    assert int(peak) < 160 << 10, "KiB at the peak"


# --- qemu ---


def test_names_of_other_files_are_not_followed(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "image"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", path])
    assert "has a backing file" in refused(path)
    data = tmp_path / "data"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", path, "1M"])
    assert "has its data in another file" in refused(path)
    sources.qemu("vmdk")(raw, tmp_path / "parent")
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", tmp_path / "parent", "-F", "vmdk", path])
    assert "has a parent file" in refused(path)
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "1M"])
    assert "only describes a disk that is in other files" in refused(path)
    split = tmp_path / "split.vmdk"
    sources.qemu("vmdk", "-o", "subformat=twoGbMaxExtentSparse")(raw, split)
    assert "only describes a disk that is in other files" in refused(split)
    extent = tmp_path / "split-s001.vmdk"
    assert "only a part of a disk that has several files" in refused(extent)


def test_a_vmdk_that_holds_nothing_but_a_description(raw: Path, tmp_path: Path) -> None:
    """With a capacity of 0 qemu takes the text inside for the one to follow."""
    path = tmp_path / "image"
    sources.qemu("vmdk")(raw, path)
    with path.open("r+b") as stream:
        stream.seek(12)
        stream.write(bytes(8))
    assert "only describes a disk that is in other files" in refused(path)


@pytest.mark.parametrize("version", [0, 4, 0xFFFFFFFF])
def test_a_qcow2_of_a_version_that_there_is_not(version: int, make: Callable[[str], Path]) -> None:
    path = make("qcow2")
    with path.open("r+b") as stream:
        stream.seek(4)
        stream.write(struct.pack(">I", version))
    assert f"says that it is qcow2 of version {version}, and there are 2 and 3: " in refused(path)


def test_a_qcow2_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"QFI\xfb")
    assert "is cut short: it has 4 bytes, and a header alone has 72; get it" in refused(path)


def test_an_encrypted_qcow2(make: Callable[[str], Path]) -> None:
    path = make("qcow2")
    with path.open("r+b") as stream:
        stream.seek(32)
        stream.write(struct.pack(">I", 2))
    assert "is encrypted" in refused(path)


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi"])
def test_a_header_of_nothing(form: str, make: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(make(form).read_bytes()[:0x48].ljust(4096, b"\0"))
    refused(path)


def test_in_use_by_a_virtual_machine(make: Callable[[str], Path], tmp_path: Path) -> None:
    path = make("qcow2")
    end = tmp_path / "nbd"
    with subprocess.Popen([tool("qemu-nbd"), "-f", "qcow2", "-k", end, path]) as server:
        while not end.exists():
            time.sleep(0.01)
        with pytest.raises(ImageError, match='Failed to get shared "write" lock'):
            open_source(path)
        server.terminate()


@pytest.mark.parametrize(
    ("tools", "package"),
    [([], "qemu-utils"), (["qemu-nbd", "qemu-img"], "util-linux")],
)
def test_tools_that_are_not_installed(
    tools: list[str],
    package: str,
    make: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("qcow2")
    for name in tools:
        (tmp_path / name).symlink_to(tool(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"apt install {package}" in refused(path)


def test_the_server_dies(make: Callable[[str], Path]) -> None:
    with closing(open_source(make("qcow2"))) as source:
        os.kill(disk_server(os.getpid()), signal.SIGKILL)
        for _ in range(8):
            with pytest.raises(OSError, match=r"NBD server, qemu-nbd, .* mount it again"):
                source.read(0, 1)


def test_the_server_outlasts_the_thread_that_opened_it(
    make: Callable[[str], Path], originals: Originals
) -> None:
    """The kernel takes the end of that thread for the end of the server's parent."""
    opened: list[Source] = []
    thread = Thread(target=lambda: opened.append(open_source(make("qcow2"))))
    thread.start()
    thread.join()
    # As the kernel has it: join() returns while the thread is still on its way out.
    deadline = time.monotonic() + 5
    while Path(f"/proc/self/task/{thread.native_id}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with closing(opened[0]) as source:
        assert source.read(0, 1 << 20) == originals.raw.read_bytes()[: 1 << 20]


def test_the_server_ends_with_who_is_killed(make: Callable[[str], Path]) -> None:
    script = (
        "import sys, time; from bundlefs.image.open import open_source;"
        " source = open_source(sys.argv[1]); print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(make("qcow2"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server = disk_server(process.pid)
        process.kill()
    assert ended(server, 5)
