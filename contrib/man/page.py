"""The manual pages: the parsers of the command lines, and what no `--help` has room for.

The pages are made when the wheel is built, so that they cannot differ from `--help`. What is
written by hand is in `sections.txt` and `upload.txt`, in roff. Nothing of this machine may get
into a page.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
WIDTH = "78"  # of the usages, as argparse breaks them; a terminal has 80


def pages() -> dict[str, str]:
    """Return all pages in roff, by the names of their files."""
    os.environ["COLUMNS"] = WIDTH
    return {"bundlefs.1": _bundlefs(), "bundlefs-upload.1": _upload()}


def _bundlefs() -> str:
    from bundlefs.cli import parser  # noqa: PLC0415  # the source tree's, once it is on the path

    top = parser()
    for each in parsers(top):
        _of_no_machine(each)
    _name_commands(top)
    return _page(top, "show a disk image as an EC2 instance-store bundle", "sections.txt")


def _upload() -> str:
    from bundlefs.cli.uploading import upload_parser  # noqa: PLC0415  # as above

    top = upload_parser()
    # The synopses in it keep their lines.
    top.description = re.sub(
        r"^(?: {4}.*\n)+", r".nf\n\g<0>.fi\n", top.description or "", flags=re.MULTILINE
    )
    return _page(top, "upload a disk image or its bundle for EC2", "upload.txt")


def _page(top: argparse.ArgumentParser, about: str, sections: str) -> str:
    # Only a build has it: the hook asks for it. It has no types.
    from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]  # noqa: PLC0415

    from bundlefs import __version__  # noqa: PLC0415  # as above

    manual = Manpage(top, format="single-commands-section")
    manual.description = about
    manual.manual = "User Commands"
    manual.source = f"bundlefs {__version__}"
    manual.parse_include(HERE / sections)
    return _polished(str(manual))


def parsers(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Return a parser and those of all its commands, at any depth."""
    yield top
    for action in top._actions:  # noqa: SLF001  # argparse has no other way to look inside
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # same
            for command in action.choices.values():
                yield from parsers(command)


def _of_no_machine(parser: argparse.ArgumentParser) -> None:
    """Replace defaults that depend on who builds the wheel, and where, by words."""
    from bundlefs.state.places import default_folder  # noqa: PLC0415  # as in page()

    words = {"jobs": "one for each CPU"}
    for action in parser._actions:  # noqa: SLF001  # as in parsers()
        if action.dest in words and action.option_strings:
            action.default = words[action.dest]
        if action.help:
            folder = str(default_folder()).replace("%", "%%")
            action.help = action.help.replace(folder, "the state folder, see FILES")


def _name_commands(top: argparse.ArgumentParser) -> None:
    for group in top._action_groups:  # noqa: SLF001  # as in parsers()
        actions = group._group_actions  # noqa: SLF001  # same
        if any(isinstance(action, argparse._SubParsersAction) for action in actions):  # noqa: SLF001
            group.title = "commands"


def _polished(text: str) -> str:
    """Escape what troff takes for a request, and keep names whole: no hyphens, ragged right."""
    head, _, body = text.partition("\n")
    head = head.replace(r"\-", "-")  # a date has hyphens
    body = re.sub(r"^'", r"\\&'", body, flags=re.MULTILINE)
    # The second is for groff 1.23, which adjusts again at each heading [groff_man(7)].
    return f"{head}\n.nh\n.ad l\n.ds AD l\n{body}"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    for name, text in pages().items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
