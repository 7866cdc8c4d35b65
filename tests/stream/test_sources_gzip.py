"""Images in gzip files: size and access points are kept, and used for the same file alone."""

import errno
import logging
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bundlefs.base.errors import InconsistentError
from bundlefs.image import gzipped
from bundlefs.image.open import open_source
from bundlefs.image.raw import Image
from tests.stream.forms import whole
from tests.support import images, sources
from tests.support.sources import SIZE
from tests.support.tools import run

MIB = images.MIB


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


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
