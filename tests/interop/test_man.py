"""The manual pages through `man`: found, with all that `--help` says, and to troff's liking."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bundlefs
from bundlefs.cli import parser
from bundlefs.cli.uploading import upload_parser
from contrib.man.page import pages, parsers
from tests.support.tools import tool

PAGES = ("bundlefs", "bundlefs-upload")
SECTIONS = (
    *("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXAMPLES", "FILES"),
    *("ENVIRONMENT", "SIGNALS", "EXIT STATUS", "TROUBLESHOOTING", "SEE ALSO"),
)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with `bin` and `share/man` of the installation.

    A wheel has the pages, and it is these which have to be right. Those beside an editable
    installation are as old as that, so there they are made anew.
    """
    if Path(bundlefs.__file__).is_relative_to(sys.prefix):
        return Path(sys.prefix)
    made = tmp_path_factory.mktemp("prefix")
    (made / "bin").mkdir()
    folder = made / "share" / "man" / "man1"
    folder.mkdir(parents=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return made


def man(prefix: Path, *words: str, page: str = "bundlefs") -> subprocess.CompletedProcess[str]:
    """Run `man` with nothing set but a PATH on which the installation's `bin` is."""
    return subprocess.run(
        [tool("man"), *words, page],
        env={
            "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "MANWIDTH": "100",
        },
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture(scope="module")
def shown(prefix: Path) -> str:
    """Return what `man bundlefs` prints."""
    return in_words(man(prefix).stdout)


def in_words(typeset: str) -> str:
    """Return what `man` prints, in plain characters."""
    # Dashes are typeset; bold is printed by going back, where there is no terminal.
    return re.sub(r".\x08", "", typeset).replace("\N{HYPHEN}", "-")


@pytest.mark.parametrize("page", PAGES)
def test_man_finds_it_beside_the_program(page: str, prefix: Path) -> None:
    found = Path(man(prefix, "--where", page=page).stdout.strip())
    assert found == prefix / "share" / "man" / "man1" / f"{page}.1"


def test_all_sections_are_there(shown: str) -> None:
    headings = re.findall(r"^[A-Z][A-Z ]+$", shown, re.MULTILINE)
    assert headings == list(SECTIONS)


def test_every_command_has_a_part(shown: str) -> None:
    programs = {each.prog for each in parsers(parser())} - {"bundlefs"}
    assert {"bundlefs mount", "bundlefs umount", "bundlefs state list"} <= programs
    headings = set(re.findall(r"^ {3}(bundlefs [a-z -]+)$", shown, re.MULTILINE))
    assert headings == programs


def test_every_option_is_explained_in_the_part_of_its_command(shown: str) -> None:
    parts = re.split(r"^ {3}(bundlefs [a-z -]+)$", shown, flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True)) | {"bundlefs": shown}
    for each in parsers(parser()):
        explained = set(re.findall(r"^ +(?:-.*, )?(--[a-z0-9-]+)", texts[each.prog], re.MULTILINE))
        assert long_options(each) <= explained, each.prog


def long_options(command: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser but `--help`, which each has."""
    options = {option for action in command._actions for option in action.option_strings}  # noqa: SLF001  # argparse has no other way to look inside
    return {option for option in options if option.startswith("--")} - {"--help"}


def test_it_says_what_no_help_says(shown: str) -> None:
    words = (
        *("/var/lib/bundlefs", "XDG_STATE_HOME", "BUNDLEFS_ACCOUNT", "BUNDLEFS_PASSPHRASE"),
        *("TMPDIR", "SIGUSR1", ".bundlefs/status.json", ".bundlefs/metrics"),
        *("user.bundlefs.sha1", "Transport endpoint is not connected", "/etc/fstab"),
    )
    assert [word for word in words if word not in shown] == []


def test_nothing_of_the_machine_that_built_it_is_in_it(shown: str) -> None:
    assert "else this host's)" in " ".join(shown.split())
    assert "(default: one for each CPU)" in shown
    assert "prefix in the state folder, see FILES)" in re.sub(r"\s+", " ", shown)
    assert str(Path.home() / ".local") not in shown


@pytest.mark.parametrize("page", PAGES)
def test_its_date_is_one(page: str, prefix: Path) -> None:
    file = prefix / "share" / "man" / "man1" / f"{page}.1"
    title = file.read_text(encoding="utf-8").partition("\n")[0]
    assert re.match(rf'\.TH {page.upper()} "1" "\d{{4}}-\d{{2}}-\d{{2}}" ', title)


@pytest.mark.parametrize("page", PAGES)
def test_troff_has_no_complaint(page: str, prefix: Path) -> None:
    done = man(prefix, "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", page=page)
    assert done.stderr == ""


def test_the_page_of_uploads_has_all_that_its_help_has(prefix: Path) -> None:
    shown = in_words(man(prefix, page="bundlefs-upload").stdout)
    assert long_options(upload_parser()) <= set(
        re.findall(r"^ +(?:-.*, )?(--[a-z0-9-]+)", shown, re.MULTILINE)
    )
    for line in (upload_parser().description or "").splitlines():
        if line.startswith("    "):
            assert line in shown, "a synopsis keeps its lines"
    headings = re.findall(r"^[A-Z][A-Z ]+$", shown, re.MULTILINE)
    assert headings[-3:] == ["ENVIRONMENT", "EXIT STATUS", "SEE ALSO"]


def test_a_complaint_would_be_seen(prefix: Path, tmp_path: Path) -> None:
    text = (prefix / "share" / "man" / "man1" / "bundlefs.1").read_text(encoding="utf-8")
    folder = tmp_path / "share" / "man" / "man1"
    folder.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (folder / "bundlefs.1").write_text(text.replace(".SH FILES", ".SH FILES\n.nonsense"))
    done = man(tmp_path, "--warnings", "-E", "UTF-8", "-Tutf8", "-Z")
    assert "nonsense" in done.stderr
