"""The answers to a shell that asks for completions: it runs bundlefs with `_ARGCOMPLETE` set.

What values an option can have is known here and not where it is declared, so that only such a run
loads it.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TextIO

import argcomplete
from argcomplete.completers import BaseCompleter, DirectoriesCompleter

from bundlefs.cli.mountopts import long_option
from bundlefs.fuse.mountpoint import FS_TYPE, mounts
from bundlefs.keys.regions import KNOWN_REGIONS

# The values of an option, by its destination.
_VALUES = {
    "region": KNOWN_REGIONS,
    "level": tuple("0123456789"),
    "arch": ("x86_64", "arm64", "i386"),
    "type": ("machine", "kernel", "ramdisk"),
}
_FOLDERS = ("mountpoint", "cache_dir", "parts")
_DESCRIPTOR = 8
"""Of the answer, as argcomplete's scripts for bash and zsh have it."""
_OF_A_MOUNT = ("umount", "status")


def answer(
    parser: Callable[[Sequence[str]], argparse.ArgumentParser], commands: Sequence[str]
) -> None:
    """Answer a shell that asks, and end; return if none does.

    Args:
        parser: returns the parser of some commands; a line that names one loads that alone.
        commands: the names of all commands.
    """
    if not {"_ARGCOMPLETE", "COMP_LINE", "COMP_POINT"} <= os.environ.keys():
        return
    words = os.environ["COMP_LINE"].split(" ")
    named = words[1:2] if len(words) > 2 and words[1] in commands else commands  # noqa: PLR2004  # typed out
    top = parser(named)
    _teach(top)
    argcomplete.autocomplete(
        top,
        always_complete_options="long",
        output_stream=_output(),
        default_completer=_Files(),
    )


def _output() -> TextIO | None:
    """Return the file from which argcomplete's scripts take an answer; names keep their bytes."""
    where = os.environ.get("_ARGCOMPLETE_STDOUT_FILENAME") or _DESCRIPTOR
    try:
        return open(where, "w", encoding="utf-8", errors="surrogateescape")  # noqa: PTH123  # or a descriptor, for good
    except OSError:
        return None


def _teach(parser: argparse.ArgumentParser) -> None:
    """Attach to a parser, and to those of its commands, what completes their arguments."""
    command = parser.prog.split()[-1]
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to look inside
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # same
            for each in action.choices.values():
                _teach(each)
        elif completer := _completer(action, command):
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete looks here


def _completer(action: argparse.Action, command: str) -> Callable[..., Iterable[str]] | None:
    """Return what lists the values of an argument; None for files and for argparse's choices."""
    if action.dest == "mountpoint" and command in _OF_A_MOUNT:
        return _mountpoints
    if action.dest in _FOLDERS:
        return _folders
    if "-o" in action.option_strings and "--output" not in action.option_strings:
        return _mount_options
    if action.dest == "passphrase_env":
        return lambda **_: os.environ
    values = _VALUES.get(action.dest)
    return (lambda **_: values) if values else None


class _Files(BaseCompleter):
    """Lists what a word can go on as; argcomplete's own way fails on names that are not UTF-8."""

    def __call__(self, *, prefix: str, **_: object) -> list[str]:
        head, slash, begun = prefix.rpartition("/")
        folder = os.path.expanduser(head + slash) or "."  # noqa: PTH111  # "/" stays at its end
        found = []
        with suppress(OSError), os.scandir(folder) as entries:
            found = [each.name + "/" * each.is_dir() for each in entries]
        return [head + slash + name for name in sorted(found) if name.startswith(begun)]


def _folders(prefix: str, **_: object) -> list[str]:
    return list(DirectoriesCompleter()(prefix))


def _mountpoints(prefix: str, **_: object) -> list[str]:
    """Return the live and dead mounts of bundlefs, or folders if none can be meant."""
    found = [point for point, kind in mounts() if kind == FS_TYPE and point.startswith(prefix)]
    return found or _folders(prefix)


def _mount_options(prefix: str, parser: argparse.ArgumentParser, **_: object) -> list[str]:
    """Return the long options and their values as mount(8) takes them, after the last comma."""
    head, comma, word = prefix.rpartition(",")
    name, equals, value = word.partition("=")
    if equals:
        found = [f"{name}={each}" for each in _values(parser, name, value)]
    else:
        found = [
            option.removeprefix("--") + ("" if action.nargs == 0 else "=")
            for action in parser._actions  # noqa: SLF001  # as in _teach()
            for option in action.option_strings
            if option.startswith("--") and action.dest not in ("help", "foreground")
        ]
    return [head + comma + each for each in found]


def _values(parser: argparse.ArgumentParser, name: str, begun: str) -> Iterable[str]:
    """Return what may come after `name=` in `-o`."""
    action = long_option(parser, name)
    if action is None or action.nargs == 0:
        return ()
    completer = getattr(action, "completer", _Files())
    return action.choices or completer(prefix=begun)
