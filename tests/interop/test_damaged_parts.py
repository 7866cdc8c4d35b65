"""Parts that are damaged: one clear error that names the part, and nothing left behind.

Every case is run through `verify` and `unbundle`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.back import MIB
from tests.interop.damaged import PART, SIMPLE, refused_by_all
from tests.mount.commands import attempt
from tests.support import images
from tests.support.bundles import Made, Workshop
from tests.support.keys import KeyPair
from tests.support.tools import run

DAMAGED = 2  # the part that is damaged where any would do


def flip(made: Made, part: int = DAMAGED) -> None:
    data = bytearray(made.parts[part].read_bytes())
    data[len(data) // 3] ^= 0x10
    made.parts[part].write_bytes(data)


def swap(made: Made) -> None:
    first, second, spare = made.parts[1], made.parts[2], made.parts[2].with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def replace_by(make: Callable[[Path], object]) -> Callable[[Made], None]:
    """Return the damage that puts something else in a part's place."""

    def damage(made: Made) -> None:
        made.parts[DAMAGED].unlink()
        make(made.parts[DAMAGED])

    return damage


def resize(part: int, change: int) -> Callable[[Made], None]:
    """Return the damage that cuts a part, or makes it longer by zeros."""

    def damage(made: Made) -> None:
        os.truncate(made.parts[part], made.parts[part].stat().st_size + change)

    return damage


PARTS: dict[str, tuple[Callable[[Made], object], str]] = {
    "missing": (lambda made: made.parts[DAMAGED].unlink(), r"part \S+\.02: No such file"),
    "short": (resize(DAMAGED, -1), rf"image\.part\.02 has {PART - 1} bytes"),
    "long": (resize(DAMAGED, 1), rf"image\.part\.02 has {PART + 1} bytes"),
    "emptied": (resize(DAMAGED, -PART), r"image\.part\.02 has 0 bytes"),
    "the last cut by a block": (resize(-1, -16), r"image\.part\.04 has \d+ bytes"),
    "the last cut by a byte": (resize(-1, -1), r"image\.part\.04 has \d+ bytes"),
    "the first short": (resize(0, -4096), r"image\.part\.00 has"),
    "bit-flipped": (flip, r"part image\.part\.02 is damaged: its SHA-1 is \w{40}, .*\w{40}"),
    "the first bit-flipped": (lambda made: flip(made, 0), r"part image\.part\.00 is damaged"),
    "the last bit-flipped": (lambda made: flip(made, 4), r"part image\.part\.04 is damaged"),
    "swapped": (swap, r"part image\.part\.01 is damaged \(it has the bytes of image\.part\.02\)"),
    "a FIFO": (replace_by(os.mkfifo), r"part \S+\.02 is not a plain file"),
    "a folder": (replace_by(Path.mkdir), r"part \S+\.02 is not a plain file"),
    "a device": (
        replace_by(lambda path: path.symlink_to("/dev/zero")),
        r"part \S+\.02 is not a plain file",
    ),
    "a loop": (
        replace_by(lambda path: path.symlink_to(path.name)),
        r"part \S+\.02: Too many levels of symbolic links",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_part_is_named(name: str, bundle: Made, user_keys: KeyPair) -> None:
    damage, says = PARTS[name]
    damage(bundle)
    reason = refused_by_all(bundle, user_keys)
    assert re.search(says, reason), reason


@pytest.mark.parametrize("name", ["short", "emptied", "the last cut by a byte", "swapped"])
def test_it_is_named_without_a_bundled_size(name: str, bundle: Made, user_keys: KeyPair) -> None:
    PARTS[name][0](bundle)
    bundle.rewrite(user_keys, bundled_size=None)
    reason = refused_by_all(bundle, user_keys)
    wrong = {"swapped": 1, "the last cut by a byte": 4}.get(name, DAMAGED)
    assert bundle.parts[wrong].name in reason


@pytest.mark.parametrize("wrong", [0, 1])
def test_of_two_parts_the_short_one_is_named(
    own_workshop: Workshop, user_keys: KeyPair, wrong: int
) -> None:
    image = images.random_image(own_workshop.folder / "disk", MIB + 5000)
    made = own_workshop.make(image, SIMPLE)
    assert len(made.parts) == 2
    resize(wrong, -16)(made)
    assert made.parts[wrong].name in refused_by_all(made, user_keys)


def test_a_bundled_size_that_no_part_is_to_blame_for(bundle: Made, user_keys: KeyPair) -> None:
    size = bundle.facts.bundled_size or 0
    bundle.rewrite(user_keys, bundled_size=size + 1)
    reason = refused_by_all(bundle, user_keys)
    assert str(size + 1) in reason
    assert "image.part" not in reason


def test_a_part_without_a_name_of_its_own_is_no_damage(
    bundle: Made, tmp_path: Path, user_keys: KeyPair
) -> None:
    """Symbolic links to files are what a bucket that is mirrored by others may hold."""
    elsewhere = tmp_path / "elsewhere"
    bundle.parts[1].rename(elsewhere)
    bundle.parts[1].symlink_to(elsewhere)
    assert attempt("verify", bundle.manifest, "--user-key", user_keys.private).code == 0


def test_an_empty_part_in_the_middle_is_no_damage(bundle: Made, user_keys: KeyPair) -> None:
    empty = bundle.manifest.with_name("empty")
    empty.touch()
    nothing = run(["sha1sum", empty]).split()[0].decode()
    parts = list(bundle.facts.parts)
    bundle.rewrite(user_keys, parts=[*parts[:2], (empty.name, nothing), *parts[2:]])
    words = ("unbundle", bundle.manifest, "--user-key", user_keys.private, "-o")
    assert attempt(*words, bundle.manifest.with_name("disk")).code == 0
