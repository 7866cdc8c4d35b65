"""Images that have to be unpacked: where, how far it is, and how much memory it takes."""

import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundlefs.base import progress
from bundlefs.image.open import open_source
from tests.stream.forms import COMPRESSED, refused
from tests.support import images
from tests.support.folders import tiny
from tests.support.sources import SIZE
from tests.support.tools import run

MIB = images.MIB


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


@pytest.mark.parametrize("form", ["bzip2", "xz", "zstd"])
def test_the_spool_is_full(form: str, make: Callable[[str], Path], spool: Path) -> None:
    path = make(form)
    with tiny(spool, 3 * MIB) as folder:
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
