"""The estimate of a bundle: the true size lies within what is shown, whatever is in the image."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundlefs import Metadata, view_image
from bundlefs.base.spans import Span
from bundlefs.codec.deflate import codec_for
from bundlefs.codec.tar import layout
from bundlefs.image.inspection import estimate
from bundlefs.image.inspection.estimate import LEVELS, Estimate
from bundlefs.image.raw import Image
from tests.support import images
from tests.support.tools import ACCOUNT

KIB, MIB = 1 << 10, 1 << 20
IMAGES = 20
MISSES = 1
"""How many of them may lie outside at a level: one in twenty."""

KINDS = ("program", "text", "noise", "zeros", "sparse")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have blocks of 8 KiB and few samples: what holds does not depend on how large they are."""
    for name, value in {
        "BLOCK_SIZE": 8 * KIB,
        "_PIECE": 2 * KIB,
        "_PROBE": 512,
        "_PROBES": 64,
        "_BLOCKS": 24,
        "_FEWEST": 6,
        "_OF_THOSE": 12,
        "_PIECES": 8,
    }.items():
        monkeypatch.setattr(estimate, name, value)


@pytest.fixture(scope="module")
def program() -> bytes:
    return Path(sys.executable).resolve().read_bytes()[: 4 * MIB]


def mixture(seed: int, program: bytes, size: int) -> bytes:
    """Return pieces of all kinds, in shares and lengths that differ from one image to another."""
    chance = random.Random(seed)  # noqa: S311  # the same each time
    shares = [chance.random() ** 3 for _ in KINDS]
    text = images.text(256 * KIB, str(seed))

    def pieces() -> Iterator[bytes]:
        left = size
        while left > 0:
            [kind] = chance.choices(KINDS, shares)
            most = 8 * KIB * chance.choice((0.1, 1, 4, 20))
            length = min(left, 64 + int(most * chance.random()))
            start = chance.randrange(len(text) // 2)
            yield {
                "program": program[start * 8 % (len(program) - length) :][:length],
                "text": text[start:][:length],
                "noise": chance.randbytes(length),
                "zeros": bytes(length),
                "sparse": chance.randbytes(50) + bytes(length),
            }[kind][:length].ljust(length, b"\0")
            left -= length

    return b"".join(pieces())


def truth(image: Image, extents: tuple[Span, ...], level: int) -> int:
    """Compress all of it."""
    stream = estimate.Stream(image, layout("image", image.size, 0, extents))
    codec = codec_for(level)
    made = sum(len(codec.compress(stream.read(number))) for number in range(stream.blocks))
    return (10 + made + 10) // 16 * 16 + 16


@pytest.mark.usefixtures("small")
def test_the_truth_lies_within_in_19_of_20_images(tmp_path: Path, program: bytes) -> None:
    misses: dict[int, list[tuple[int, Estimate, int]]] = {level: [] for level in LEVELS}
    for seed in range(IMAGES):
        path = tmp_path / f"image{seed}"
        path.write_bytes(mixture(seed, program, 500 * KIB + 200 * KIB * (seed % 3)))
        with Image.open(path) as image:
            extents = image.extents()
            for found in estimate.estimate(image, extents):
                true = truth(image, extents, found.level)
                assert found.least <= found.size <= found.most
                if not found.least <= true <= found.most:
                    misses[found.level].append((seed, found, true))
        path.unlink()
    assert all(len(each) <= MISSES for each in misses.values()), misses


def test_of_a_small_image_it_is_the_very_size(tmp_path: Path) -> None:
    path = images.sparse_image(
        tmp_path / "image", 8 * MIB, {0: images.text(MIB), 5 * MIB: b"".join(images.noise(MIB))}
    )
    with Image.open(path) as image:
        estimates = estimate.estimate(image, image.extents())
    for found in estimates:
        assert found.exact
        with view_image(path, Metadata(account=ACCOUNT), level=found.level) as bundle:
            size = sum(bundle.size(name) for name in bundle.names() if ".part." in name)
        assert found.least <= size <= found.most
        assert found.most - found.least <= size // 200


def test_it_is_the_same_each_time_and_reads_little(
    tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image with 120 blocks of data, no more than the samples are read."""
    monkeypatch.setattr(estimate, "_PIECES", 2)
    monkeypatch.setattr(estimate, "_BLOCKS", 40)
    path = tmp_path / "image"
    path.write_bytes((program[: 2 * MIB] + images.text(2 * MIB)) * 30)
    found = []
    with Image.open(path) as image:
        for _ in range(2):
            before = image.bytes_read
            found.append(estimate.estimate(image, image.extents()))
            assert image.bytes_read - before <= 80 * MIB
    sizes = [[(one.size, one.least, one.most) for one in each] for each in found]
    assert sizes[0] == sizes[1]
    assert [one.level for one in found[0]] == [1, 6, 9]
    assert found[0][0].size > found[0][1].size > found[0][2].size
    assert all(one.seconds > 0 for one in found[0])
