"""The README and the pages beside it agree with the program, and lead to each other."""

import re
import shlex
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from bundlefs.cli import COMMANDS, parser
from tests.support.documents import (
    CONTRIB,
    FOR_GITHUB,
    PAGES,
    README,
    ROOT,
    anchors,
    commands,
    links,
    name_of,
)
from tests.support.tools import run, tool

FOREIGN = {
    # docker and podman
    *("--device", "--cap-add", "--security-opt"),
    # aws and rclone
    *("--sse", "--s3-server-side-encryption", "--s3-no-check-bucket"),
    *("--block-device-mappings", "--name"),
}
NEWCOMER = (CONTRIB / "newcomer").read_text()
PATTERNS = set(re.findall(r"(?:does \S+ \S+|readme) '([^']*)'", NEWCOMER))
with_name = pytest.mark.parametrize("page", PAGES, ids=name_of)


# Command lines


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in PAGES for line in dict.fromkeys(commands(page.read_text()))],
    ids=lambda value: name_of(value) if isinstance(value, Path) else value,
)
def test_each_command_line_is_understood(
    page: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line.replace("[OPTIONS]", ""), comments=True)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            parser().parse_args(words)
        assert "usage: bundlefs" in capsys.readouterr().out
    elif len(words) == 1 and page != README:
        assert words[0] in COMMANDS  # the name of a command alone
    else:
        assert parser().parse_args(words).run, name_of(page)


def test_the_command_lines_are_found() -> None:
    names = {line.split()[1] for line in commands(README.read_text())}
    assert {"mount", "umount", "status", "bundle", "verify", "unbundle", "open"} <= names
    for name in ("ec2.md", "troubleshooting.md"):
        assert len(commands((CONTRIB / name).read_text())) > 4
    for name in ("uploading", "many-images", "hosts", "images", "install"):
        assert commands((CONTRIB / f"{name}.md").read_text())


def test_a_wrong_command_line_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        parser().parse_args(shlex.split("bundle --sizes 8G - DEST"))
    assert "--sizes" in capsys.readouterr().err


# Options


@pytest.fixture
def known(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that any command has, and those of other programs."""
    for command in COMMANDS:
        with pytest.raises(SystemExit, match=r"^0$"):
            parser((command,)).parse_args([command, "--help"])
    upload = run([sys.executable, "-m", "bundlefs.cli.uploading", "--help"]).decode()
    return set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out + upload)) | FOREIGN


@with_name
def test_the_options_that_a_page_names_are_options(page: Path, known: set[str]) -> None:
    named = re.findall(r"`(--[a-z0-9-]+)", page.read_text())
    assert [name for name in named if name not in known] == []


def test_the_options_are_found() -> None:
    for page in (README, CONTRIB / "ec2.md", CONTRIB / "troubleshooting.md"):
        assert re.search(r"`--[a-z0-9-]+", page.read_text())


# Links


@with_name
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for name, anchor in links(page.read_text()):
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT.resolve()), name
        assert target.exists(), name
        assert not anchor or anchor in anchors(target.read_text()), f"{name}#{anchor}"


def test_links_are_found() -> None:
    text = (CONTRIB / "troubleshooting.md").read_text()
    assert ("", "at-the-mount") in links(text)
    assert ("ec2.md", "the-bucket") in links(text)
    assert links("[a](https://example.org/b#c) and [d](e.md#f-g)") == [("e.md", "f-g")]
    assert anchors("# A `b`: c-d\n```\n# no\n```\n") == {"a-b-c-d"}


def test_each_page_can_be_reached_from_the_readme() -> None:
    reached, queue = {README.resolve()}, deque([README])
    while queue:
        page = queue.popleft()
        for name, _ in links(page.read_text()):
            target = (page.parent / name).resolve() if name else page
            if target.suffix == ".md" and target not in reached:
                reached.add(target)
                queue.append(target)
    # GitHub itself leads to its own.
    wanted = [page for page in PAGES if page not in FOR_GITHUB]
    assert [name_of(page) for page in wanted if page.resolve() not in reached] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 165


# What contrib/newcomer types


def readme_function(tmp_path: Path, pattern: str) -> subprocess.CompletedProcess[str]:
    """Run the script's own function, over these pages in place of the newcomer's clone."""
    (tmp_path / "root").mkdir(exist_ok=True)
    clone = tmp_path / "root" / "bundlefs"
    if not clone.is_symlink():
        clone.symlink_to(ROOT)
    [function] = re.findall(r"^readme\(\) \{\n.*?^\}\n", NEWCOMER, re.MULTILINE | re.DOTALL)
    [pages] = re.findall(r"^pages=\(.*?\)$", NEWCOMER, re.MULTILINE | re.DOTALL)
    die = 'die() { echo "$*" >&2; exit 1; }'
    script = f'set -euo pipefail\nfresh=$2\n{die}\n{pages}\n{function}\nreadme "$1"'
    return subprocess.run(
        [tool("bash"), "-c", script, "newcomer", pattern, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_each_command_of_the_newcomer_is_found_exactly_once(pattern: str, tmp_path: Path) -> None:
    done = readme_function(tmp_path, pattern)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_command_that_is_missing_or_ambiguous_would_be_seen(tmp_path: Path) -> None:
    missing, several = (readme_function(tmp_path, one) for one in ("^nothing of it", "^sudo "))
    assert (missing.returncode, several.returncode) == (1, 1)
    assert "no command" in missing.stderr
    assert "several commands" in several.stderr


def test_the_patterns_of_the_newcomer_are_found() -> None:
    assert len(PATTERNS) > 15
    assert {
        "^pipx uninstall ",
        "^sudo apt install .* libfuse3-dev ",
        " fuse\\.bundlefs ",
    } <= PATTERNS
