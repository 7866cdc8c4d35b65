"""Prefixes at which other tools fail, though bundlefs does not: a word at the mount, once."""

import shlex
from pathlib import Path

import pytest

from bundlefs.cli.prefixes import warn_of_prefix
from tests.mount.commands import attempt
from tests.support import images
from tests.support.mounts import bundlefs
from tests.support.tools import pipeline

ODD = {
    "my image": "has characters that a shell takes for its own",
    "a$(id)": "has characters that a shell takes for its own",
    "a;b": "has characters that a shell takes for its own",
    "a'b": "has characters that a shell takes for its own",
    "a*": "has characters that a shell takes for its own",
    "a{b,c}": "has characters that a shell takes for its own",
    "~root": "has characters that a shell takes for its own",
    "-rf": "has characters that a shell takes for its own",
    "größe": "is not ASCII",
    "größe 1": "is not ASCII",
}
PLAIN = ("image", "web-2.1_final", "my,ami", "a=b", "a+b", "a@b:c", "100%", "_", "0")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 100_000)


@pytest.mark.parametrize("prefix", ODD)
def test_what_is_warned_of(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_prefix(prefix)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bundlefs: warning: the prefix '{prefix}' {ODD[prefix]}, and e")
    assert "A --prefix of letters, digits, '.', '_' and '-' suits all tools" in line


@pytest.mark.parametrize("prefix", PLAIN)
def test_what_is_not(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_prefix(prefix)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("prefix", PLAIN)
def test_a_shell_takes_what_is_not_warned_of_as_it_is(prefix: str, tmp_path: Path) -> None:
    """As ec2-unbundle hands names to it: without quotes."""
    (tmp_path / f"{prefix}.part.00").write_text("content")
    script = f"cd {shlex.quote(str(tmp_path))} && cat {prefix}.part.00"
    assert pipeline(script)[0] == b"content"


@pytest.mark.parametrize("command", ["mount", "bundle"])
@pytest.mark.parametrize("prefix", ["my image", "größe"])
def test_the_word(command: str, prefix: str, image: Path, mountpoint: Path) -> None:
    ending = attempt(command, image, mountpoint, "--prefix", prefix)
    if command == "mount":
        bundlefs("umount", mountpoint)
    assert (ending.code, ending.out) == (0, "")
    assert ending.err.count("warning: the prefix") == 1


def test_once_for_a_folder(image: Path, tmp_path: Path, mountpoint: Path) -> None:
    folder, log = tmp_path / "images", tmp_path / "log"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).hardlink_to(image)
    words = ("--log-file", log, "-o", "prefix=my image")
    ending = attempt("mount", folder, mountpoint, *words)
    try:
        assert len(list(mountpoint.glob("*/my image.part.*"))) == 2
    finally:
        bundlefs("umount", mountpoint)
    assert (ending.err + log.read_text()).count("the prefix") == 1
