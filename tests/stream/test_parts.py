"""Part files: each is opened once and read in order; what changes in one is found, for good."""

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundlefs.base import descriptors as descriptors_module
from bundlefs.base.descriptors import Descriptors
from bundlefs.base.errors import BundleChangedError, BundleError
from bundlefs.base.spans import Span
from bundlefs.image.identity import Identity
from bundlefs.manifest.read import parse_manifest
from bundlefs.unbundling import parts as parts_module
from bundlefs.unbundling.part_file import RUN
from bundlefs.unbundling.parts import PartFiles
from tests.support import bundles, images
from tests.support.bundles import Facts
from tests.support.changes import CHANGES, TOUCHES, Change, edit

MIB = 1 << 20
SIZES = (3 * MIB + 16, 2 * MIB, 5 * MIB + 1, 16, 4 * MIB - 17)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Parts in a folder, and the stream that they are."""

    folder: Path
    paths: list[Path]
    content: bytes

    def parts(self, *, check: bool = True, **facts: object) -> PartFiles:
        """Open them by a manifest that names them."""
        named = [(path.name, sha1(self.folder / path.name)) for path in self.paths]
        said = Facts(named, 1, None, None, None, ("00", "00"), **facts)  # type: ignore[arg-type]
        manifest = parse_manifest(bundles.manifest(said, None).encode())
        return PartFiles(manifest, self.folder, check=check)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def _few_runs_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read again comes from the file."""
    monkeypatch.setattr(parts_module, "_RUNS_KEPT", 8)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    content = b"".join(images.noise(sum(SIZES), "parts"))
    paths, start = [], 0
    for number, size in enumerate(SIZES):
        paths.append(tmp_path / f"part.{number}")
        paths[-1].write_bytes(content[start : start + size])
        start += size
    return Bundle(tmp_path, paths, content)


@pytest.fixture
def parts(bundle: Bundle) -> Iterator[PartFiles]:
    with bundle.parts() as opened:
        yield opened


class Calls:
    """Counts what is asked of the system for files in a folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.opened: Counter[str] = Counter()
        self.reads: list[tuple[int, int, int]] = []
        real_open, real_pread = os.open, os.pread

        def counted_open(path: Path, *args: int) -> int:
            if Path(path).parent == folder:
                self.opened[Path(path).name] += 1
            return real_open(path, *args)

        def counted_pread(file: int, length: int, offset: int) -> bytes:
            self.reads.append((file, offset, length))
            return real_pread(file, length, offset)

        monkeypatch.setattr(os, "open", counted_open)
        monkeypatch.setattr(os, "pread", counted_pread)


# How files are read


@pytest.mark.parametrize("step", [4096, 65_536 + 16, 3 * MIB])
def test_each_file_is_opened_once_and_read_in_whole_runs(
    step: int, bundle: Bundle, parts: PartFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, bundle.folder)
    for start in range(0, parts.size, step):
        # As decryption does: with the 16 bytes before.
        span = Span(max(0, start - 16), min(start + step, parts.size))
        assert parts.read(span) == bundle.content[span.start : span.stop]
    assert set(calls.opened.values()) == {1}
    assert len(calls.opened) == len(SIZES)
    # Once to digest it, once to read it, each at a multiple of a run.
    runs = sum(-(-size // RUN) for size in SIZES)
    assert len(calls.reads) == 2 * runs
    assert all(offset % RUN == 0 for _, offset, _ in calls.reads)


def test_no_more_than_a_few_stay_open(tmp_path: Path) -> None:
    """A bundle may have thousands of parts."""
    content = b"".join(images.noise(300 * 64, "many"))
    paths = [tmp_path / f"part.{number:03}" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_bytes(content[64 * number : 64 * number + 64])
    many = Bundle(tmp_path, paths, content)
    before = open_files()
    with many.parts() as parts, ThreadPoolExecutor(8) as pool:

        def read(number: int) -> bytes:
            assert open_files() <= before + descriptors_module.MOST + 16
            return parts.read(Span(64 * number, 64 * number + 64))

        numbers = [*range(300), *range(299, -1, -1)]
        for number, data in zip(numbers, pool.map(read, numbers), strict=True):
            assert data == content[64 * number : 64 * number + 64]
        assert open_files() <= before + descriptors_module.MOST
    assert open_files() == before


def test_a_part_is_digested_once_though_its_file_was_closed(
    bundle: Bundle, parts: PartFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.read(Span(0, 10)) == bundle.content[:10]
    parts.close()
    calls = Calls(monkeypatch, bundle.folder)
    assert parts.read(Span(2 * MIB, 2 * MIB + 10)) == bundle.content[2 * MIB : 2 * MIB + 10]
    assert [(offset, length) for _, offset, length in calls.reads] == [(2 * MIB, RUN)]


def test_a_borrowed_descriptor_outlasts_its_name(tmp_path: Path) -> None:
    kept, path = Descriptors(0), tmp_path / "file"
    path.write_bytes(b"old")
    with kept.borrow(path) as file, kept.borrow(path) as again:
        path.unlink()
        path.write_bytes(b"new")
        kept.drop(path)
        with kept.borrow(path) as new:
            assert os.pread(new, 3, 0) == b"new"
        assert (os.pread(file, 3, 0), os.pread(again, 3, 0)) == (b"old", b"old")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


# What changes


def read_all(parts: PartFiles, number: int, step: int = MIB) -> bytes:
    """Read a whole part, and what is kept of it from elsewhere first, so that nothing is."""
    for other in range(len(SIZES)):
        if other != number:
            parts.read(parts.span(other))
    span = parts.span(number)
    starts = range(span.start, span.stop, step)
    return b"".join(parts.read(Span(at, min(at + step, span.stop))) for at in starts)


@pytest.mark.parametrize("state", ["open", "closed"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_digest_is_found_and_is_for_good(
    change: Change,
    state: str,
    bundle: Bundle,
    parts: PartFiles,
) -> None:
    path = bundle.paths[2]
    whole = path.read_bytes()
    status = path.stat()
    parts.check(2)
    if state == "closed":
        parts.close()
    change(path)
    with pytest.raises(BundleChangedError, match=r"part\.2 was changed after") as first:
        read_all(parts, 2)
    # Put back, it stays refused: what was read of it between may be anything.
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for number in range(5):
        with pytest.raises(BundleChangedError) as again:
            parts.read(Span(parts.span(2).start + number, parts.span(2).start + number + 1))
        assert str(again.value) == str(first.value)
    with pytest.raises(BundleChangedError):
        parts.check(2)
    # Others are what they were.
    assert parts.read(parts.span(1)) == bundle.content[parts.span(1).start : parts.span(1).stop]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_without_digests_too(change: Change, bundle: Bundle) -> None:
    with bundle.parts(check=False) as parts:
        start = parts.span(2).start
        parts.read(Span(start, start + 1))
        change(bundle.paths[2])
        with pytest.raises(BundleChangedError, match="without digests") as error:
            read_all(parts, 2)
        assert any(word in str(error.value) for word in ("ctime moved", "inode was", "size was"))


@pytest.mark.parametrize("touch", TOUCHES)
def test_the_same_bytes_are_the_same_part(touch: Change, bundle: Bundle, parts: PartFiles) -> None:
    wanted = bundle.content[parts.span(2).start : parts.span(2).stop]
    for _ in range(5):
        assert read_all(parts, 2) == wanted
        touch(bundle.paths[2])
    assert read_all(parts, 2) == wanted


def test_times_that_jump_for_nothing_cost_three_digests(
    bundle: Bundle,
    parts: PartFiles,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = bundle.content[parts.span(2).start : parts.span(2).stop]
    calls = Calls(monkeypatch, bundle.folder)
    for _ in range(8):
        os.utime(bundle.paths[2])
        assert read_all(parts, 2) == wanted
    last = Counter((offset, length) for _, offset, length in calls.reads)[(5 * MIB, 1)]
    assert last <= 8 + 4, "digested once and three times more, and read eight times"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "mtime moved" in caplog.text
    # Its bytes are compared all the same.
    edit(bundle.paths[2])
    with pytest.raises(BundleChangedError, match="are not what they were"):
        read_all(parts, 2)


@pytest.mark.parametrize("digested", ["before", "meanwhile"])
def test_times_that_jump_all_the_time(digested: str, bundle: Bundle, parts: PartFiles) -> None:
    """Some clusters answer with the times of one copy, or of another."""
    if digested == "before":
        parts.check(2)
    over = threading.Event()

    def jump() -> None:
        while not over.is_set():
            os.utime(bundle.paths[2])

    with ThreadPoolExecutor(1) as pool:
        pool.submit(jump)
        try:
            wanted = bundle.content[parts.span(2).start : parts.span(2).stop]
            assert [read_all(parts, 2) == wanted for _ in range(3)] == [True] * 3
        finally:
            over.set()


def test_an_edit_that_no_time_shows(
    bundle: Bundle, parts: PartFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's file system answers from its memory for a while, and mappings are written late."""
    monkeypatch.setattr(Identity, "changes", lambda *_: [])
    parts.check(2)
    edit(bundle.paths[2])
    with pytest.raises(BundleChangedError, match="bytes 1048576 to 1310720 are not what they"):
        read_all(parts, 2)


def test_what_was_read_before_the_change_is_still_given(bundle: Bundle, parts: PartFiles) -> None:
    """What is kept in memory was proven."""
    start = parts.span(2).start
    wanted = bundle.content[start + MIB : start + 2 * MIB]
    assert parts.read(Span(start + MIB, start + 2 * MIB)) == wanted
    edit(bundle.paths[2])
    assert parts.read(Span(start + MIB, start + 2 * MIB)) == wanted


def test_a_part_that_never_was_whole_may_be_fetched_anew(bundle: Bundle) -> None:
    path = bundle.paths[2]
    whole = path.read_bytes()
    with bundle.parts() as parts:
        edit(path)
        for _ in range(3):
            with pytest.raises(BundleError, match=r"part\.2 is damaged.*fetch it anew") as error:
                parts.read(parts.span(2))
            assert not isinstance(error.value, BundleChangedError)
        path.with_suffix(".new").write_bytes(whole)
        path.with_suffix(".new").rename(path)
        assert parts.read(parts.span(2)) == whole


def test_a_part_that_goes_away_may_come_back(bundle: Bundle, parts: PartFiles) -> None:
    path = bundle.paths[2]
    parts.check(2)
    path.rename(path.with_suffix(".away"))
    path.with_suffix(".away").chmod(0o400)
    for _ in range(2):
        with pytest.raises(BundleError, match="No such file or directory") as error:
            read_all(parts, 2)
        assert not isinstance(error.value, BundleChangedError)
    shutil.copyfile(path.with_suffix(".away"), path)
    assert read_all(parts, 2) == path.read_bytes()


@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_another_kind_of_file_in_its_place(kind: str, bundle: Bundle, parts: PartFiles) -> None:
    path = bundle.paths[2]
    parts.check(2)
    path.unlink()
    os.mkfifo(path) if kind == "FIFO" else path.mkdir()
    with pytest.raises(BundleError, match=r"part\.2"):
        read_all(parts, 2)


def test_readers_of_a_part_that_is_edited_get_its_bytes_or_an_error(bundle: Bundle) -> None:
    """Whenever the edit happens, digest or read, no byte of it is given."""
    path = bundle.paths[2]
    whole = path.read_bytes()
    for _ in range(5):
        path.write_bytes(whole)
        with bundle.parts() as parts, ThreadPoolExecutor(4) as pool:
            span = parts.span(2)

            def read(at: int, parts: PartFiles = parts, span: Span = span) -> bytes | None:
                try:
                    return parts.read(Span(span.start + at, span.start + at + 100))
                except BundleError:
                    return None

            offsets = [MIB * (number % 5) + number for number in range(40)]
            found = pool.map(read, offsets)
            edit(path)
            for at, data in zip(offsets, found, strict=True):
                assert data in (None, whole[at : at + 100])
