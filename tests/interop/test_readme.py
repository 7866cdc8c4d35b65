"""What the README shows is what there is: its Python runs, its command lines are understood."""

import argparse
import re
import shlex
from pathlib import Path

import fsspec  # type: ignore[import-untyped]  # it has no types
import pytest

from bundlefs.cli import parser
from tests.conftest import KeyPair
from tests.support import images, oracles

MIB = 1 << 20
README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shown_lines() -> list[str]:
    """Give the lines of all code blocks that are not Python, continued lines joined."""
    indented = [line[4:] for line in README.splitlines() if line.startswith("    ")]
    fenced = re.findall(r"^```(?:sh|console|bash)?\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    text = "\n".join([*indented, *fenced]).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines()]


def commands() -> list[str]:
    """Give every `bundlefs` command line, in blocks and in the text."""
    in_blocks = [part.strip() for line in shown_lines() for part in re.split(r"&&|\|", line)]
    in_text = re.findall(r"`(bundlefs [^`]*)`", README)
    return [text for text in (*in_blocks, *in_text) if re.match(r"bundlefs [a-z]", text)]


@pytest.mark.parametrize("command", commands())
def test_each_command_line_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command.replace("[OPTIONS]", ""), comments=True)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            parser().parse_args(words)
        assert "usage: bundlefs" in capsys.readouterr().out
    else:
        assert parser().parse_args(words).run


def test_the_command_lines_are_found() -> None:
    names = {command.split()[1] for command in commands()}
    assert {"mount", "umount", "status", "state", "bundle", "verify", "unbundle", "open"} <= names
    assert len(commands()) > 10


def test_a_wrong_command_line_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        parser().parse_args(shlex.split("bundle --sizes 8G - DEST"))
    assert "--sizes" in capsys.readouterr().err


def test_each_option_of_the_table_is_one() -> None:
    options = re.findall(r"^\| `(--[a-z0-9-]+)", README, re.MULTILINE)
    assert len(options) > 4
    [subparsers] = [
        action
        for action in parser()._actions  # noqa: SLF001  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  # same
    ]
    known = subparsers.choices["mount"]._option_string_actions  # noqa: SLF001  # same
    assert [option for option in options if option not in known] == []


@pytest.fixture
def namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_keys: KeyPair
) -> dict[str, object]:
    """Go to a folder with what the blocks presuppose, and give the names that they do."""
    monkeypatch.chdir(tmp_path)
    image = images.random_image(tmp_path / "disk.raw", 11 * MIB + 5)
    (tmp_path / "key.pem").symlink_to(user_keys.private)
    data = image.read_bytes()
    filesystem = fsspec.filesystem("memory", skip_instance_cache=True)
    return {"size": len(data), "data": data, "filesystem": filesystem}


def test_its_python_runs_block_after_block(
    namespace: dict[str, object],
    tmp_path: Path,
    user_keys: KeyPair,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(BLOCKS) == 3
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README, block {number + 1}", "exec"), namespace)  # noqa: S102  # ours
    out = capsys.readouterr().out
    folder, image = tmp_path / "bundle", tmp_path / "disk.raw"
    assert sorted(path.name for path in folder.iterdir()) == [
        "image.cn-north-1.manifest.xml",
        "image.manifest.xml",
        "image.part.00",
        "image.part.01",
    ]
    manifest = folder / "image.manifest.xml"
    listed = [folder / name for name in oracles.part_names(manifest)]
    secrets = oracles.secrets(manifest, user_keys.private)
    oracles.compare_streaming(listed, secrets, image)
    filesystem = namespace["filesystem"]
    assert isinstance(filesystem, fsspec.AbstractFileSystem)
    stored = filesystem.find("/bucket/my-image")
    assert stored == [f"/bucket/my-image/image.part.0{number}" for number in range(2)]
    # The last block shows the view, file by file, then the image.
    *shown, last = out.splitlines()
    assert [line.split()[0] for line in shown] == [
        "image.manifest.xml",
        "image.part.00",
        "image.part.01",
    ]
    size, _, piece = last.partition(" ")
    assert int(size) == image.stat().st_size
    assert piece == repr(image.read_bytes()[MIB : MIB + 512])
