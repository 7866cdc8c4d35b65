"""What the README shows is what there is: its Python runs, its tables name what is there."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import fsspec  # type: ignore[import-untyped]  # it has no types
import pytest

from bundlefs.cli import parser
from tests.support import images, oracles
from tests.support.documents import CONTRIB, PAGES, README, name_of, python_blocks
from tests.support.keys import KeyPair

MIB = 1 << 20
TEXT = README.read_text()
PARTS = ["image.part.00", "image.part.01"]


def test_each_option_of_the_table_is_one() -> None:
    options = re.findall(r"^\| `(--[a-z0-9-]+)", TEXT, re.MULTILINE)
    assert len(options) > 4
    [subparsers] = [
        action
        for action in parser()._actions  # noqa: SLF001  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  # same
    ]
    known = subparsers.choices["mount"]._option_string_actions  # noqa: SLF001  # same
    assert [option for option in options if option not in known] == []


def test_its_parts_are_in_the_order_in_which_they_are_needed() -> None:
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE) == [
        *("Install", "Quick start", "Options", "The way back", "What you can rely on", "Speed"),
        *("Library", "More"),
    ]


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_keys: KeyPair) -> Path:
    """Go to a folder with the two files that the blocks read: an image and a key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pem").symlink_to(user_keys.private)
    return images.random_image(tmp_path / "disk.raw", 11 * MIB + 5)


Blocks = Callable[[Path], None]


@pytest.fixture
def execute() -> Blocks:
    """Each block of a page runs in a namespace of its own: it defines what it uses."""

    def execute(page: Path) -> None:
        for number, block in enumerate(python_blocks(page.read_text())):
            code = compile(block, f"{name_of(page)}, block {number + 1}", "exec")
            exec(code, {"__name__": "block"})  # noqa: S102  # ours

    return execute


def test_its_python_runs_block_after_block(
    image: Path,
    execute: Blocks,
    tmp_path: Path,
    user_keys: KeyPair,
    capsys: pytest.CaptureFixture[str],
) -> None:
    execute(README)
    out = capsys.readouterr().out
    folder = tmp_path / "bundle"
    assert sorted(path.name for path in folder.iterdir()) == [
        "image.cn-north-1.manifest.xml",
        "image.manifest.xml",
        *PARTS,
    ]
    manifest = folder / "image.manifest.xml"
    listed = [folder / name for name in oracles.part_names(manifest)]
    secrets = oracles.secrets(manifest, user_keys.private)
    oracles.compare_streaming(listed, secrets, image)
    # The last block shows the view, file by file, then the image.
    *shown, last = out.splitlines()
    assert [line.split()[0] for line in shown] == ["image.manifest.xml", *PARTS]
    size, _, piece = last.partition(" ")
    assert int(size) == image.stat().st_size
    assert piece == repr(image.read_bytes()[MIB : MIB + 512])


@pytest.mark.usefixtures("image")
def test_the_python_of_uploading_puts_a_bundle_into_an_object_store(execute: Blocks) -> None:
    filesystem = fsspec.filesystem("memory")
    execute(CONTRIB / "uploading.md")
    stored = filesystem.find("/bucket/my-image")
    filesystem.rm("/bucket", recursive=True)
    assert stored == [f"/bucket/my-image/{name}" for name in ("image.manifest.xml", *PARTS)]


def test_no_python_is_left_out() -> None:
    with_python = {name_of(page) for page in PAGES if python_blocks(page.read_text())}
    assert with_python == {"README.md", "contrib/uploading.md"}
    assert len(python_blocks(TEXT)) == 2
