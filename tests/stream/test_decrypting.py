"""Parts of any size, decrypted several at a time: what comes of them is what was encrypted."""

import hashlib
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.base.errors import BundleChangedError, BundleError
from bundlefs.base.workers import Workers
from bundlefs.codec import cbc
from bundlefs.codec.cbc import CbcState
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling import decrypting
from bundlefs.unbundling.decrypting import Decrypting
from bundlefs.unbundling.parts import PartFiles

SECRET = Secret(key=bytes(range(16)), iv=bytes(range(16, 32)))
STRETCH = 1000


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as made:
        yield made


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decrypting, "_STRETCH", STRETCH)


def cut(plain: bytes, cuts: list[int], folder: Path) -> PartFiles:
    """Encrypt, cut at any bytes, and write that to files."""
    sealed = bytes(cbc.finish(SECRET.key, CbcState(SECRET.iv), plain))
    places = [0, *sorted(min(place, len(sealed)) for place in cuts), len(sealed)]
    parts = []
    for number, (start, stop) in enumerate(pairwise(places)):
        data, name = sealed[start:stop], f"part.{number}"
        (folder / name).write_bytes(data)
        parts.append(SimpleNamespace(filename=name, digest=hashlib.sha1(data).hexdigest()))
    manifest = SimpleNamespace(parts=tuple(parts), bundled_size=len(sealed))
    return PartFiles(cast("BundleManifest", manifest), folder)


def flip(path: Path) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def nothing(*_: int) -> None:
    """Take no notice of progress."""


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(0, 5000),
    cuts=st.lists(st.one_of(st.integers(0, 5020), st.integers(0, 100)), max_size=8),
)
def test_parts_of_any_size(
    size: int, cuts: list[int], workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = random.Random(size).randbytes(size)  # noqa: S311  # no secret
    told: list[int] = []
    with cut(plain, cuts, tmp_path_factory.mktemp("parts")) as parts:
        stream = Decrypting(parts, SECRET, size, workers)
        pieces = stream.pieces(lambda done, _: told.append(done))
        assert b"".join(bytes(piece) for piece in pieces) == plain
        assert told == sorted(told)
        assert told[-1] == parts.size


@pytest.mark.parametrize("size", [STRETCH, 3 * STRETCH])
def test_no_byte_of_a_damaged_part_is_used(size: int, workers: Workers, tmp_path: Path) -> None:
    """Whether it fits into memory or not, and the ones before it are."""
    plain = bytes(5 * size)
    with cut(plain, [size, 2 * size, 3 * size], tmp_path) as parts:
        flip(tmp_path / "part.2")
        found: list[int] = []
        pieces = Decrypting(parts, SECRET, len(plain), workers).pieces(nothing)
        with pytest.raises(BundleError, match=r"part part\.2 is damaged"):
            found.extend(len(piece) for piece in pieces)
        assert 2 * size - 16 <= sum(found) <= 2 * size


def test_a_part_that_was_digested_before_is_the_same(workers: Workers, tmp_path: Path) -> None:
    plain = bytes(5 * STRETCH)
    with cut(plain, [STRETCH], tmp_path) as parts:
        parts.check(0)
        flip(tmp_path / "part.0")
        with pytest.raises(BundleChangedError):
            list(Decrypting(parts, SECRET, len(plain), workers).pieces(nothing))


def test_what_was_taken_whole_is_digested_no_more(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cut(bytes(900), [], tmp_path) as parts:
        list(Decrypting(parts, SECRET, 900, workers).pieces(nothing))
        monkeypatch.setattr("bundlefs.unbundling.part_file.read_fully", None)
        parts.check(0)
