"""What is damaged, no image, or more than one: left out as the tools do, or one clear error."""

import logging
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bundlefs.image.open import open_source
from tests.stream.forms import COMPRESSED, one_of_each, refused, whole
from tests.support import images, sources
from tests.support.sources import SIZE, Originals
from tests.support.tools import run, tool

MIB = images.MIB


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
