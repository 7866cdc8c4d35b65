"""Command lines that cannot be meant as they stand: what is wrong, and what to type instead.

argparse says what is missing or unknown; this says what it has no words for. It changes nothing,
and looks only at what kind of file a path leads to and at the kernel's table of mounts.
"""

import os
import shlex
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from bundlefs.base.errors import UsageError
from bundlefs.base.escapes import quoted
from bundlefs.cli.mountopts import nearest
from bundlefs.cli.streams import tell
from bundlefs.fuse.mountpoint import find_mount, sources

_OWN = frozenset(("-h", "--help", "-V", "--version", "--"))
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
}


def as_help(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return `help` and `help COMMAND` as argparse knows them, and other words as they are.

    Raises:
        UsageError: what help is asked for is no command.
    """
    if words[:1] != ["help"] or (len(words) > 1 and os.path.lexists(words[0])):
        return list(words)
    command = words[1] if len(words) > 1 else "--help"
    if command not in (*commands, *_OWN):
        raise UsageError(
            f"{quoted(command)} is no command"
            + (nearest(command, commands) or f"; the commands are {', '.join(commands)}")
        )
    return [*words[1:], "--help"]


def refuse_option_first(words: Sequence[str], options: dict[str, Collection[str]]) -> None:
    """Refuse a line that begins with an option of a command, or with one that does not exist.

    Args:
        words: the line.
        options: those of each command.

    Raises:
        UsageError: the line begins so; the text has the command that goes before the option.
    """
    name = words[0].partition("=")[0]
    if not name.startswith("-") or name in _OWN:
        return
    named = [word for word in words[1:] if word in options][:1]
    having = [each for each in named or options if name in options[each]]
    if having:
        raise UsageError(
            f"the option {name} comes behind its command: bundlefs {having[0]} {name} ..."
        )
    known = {option for each in named or options for option in options[each]}
    raise UsageError(
        f"unknown option {quoted(name)}{nearest(name, known)}; options come behind the command,"
        f" and `bundlefs {named[0] if named else 'COMMAND'} --help` lists them"
    )


def refuse_folder_first(command: str, what: str, first: Path, second: Path) -> None:
    """Refuse two arguments in the wrong order: a folder, and `what` is to be shown or put there.

    Raises:
        UsageError: it is so; the text has the line that is meant.
    """
    kind = _kind(second)
    if _kind(first) == "a folder" and kind in ("a file", "a block device"):
        raise UsageError(
            f"{first} is a folder and {second} is {kind}: the {what} comes first,"
            f" bundlefs {command} {_typed(second)} {_typed(first)}"
        )


def refuse_source(command: str, path: Path) -> None:
    """Refuse an image where a mountpoint is wanted.

    Raises:
        UsageError: it is so; the text has the line that is meant, if it is mounted.
    """
    kind, where = _kind(path), os.path.realpath(path)
    if kind is None or find_mount(Path(where)):
        return
    mounted = [
        f"bundlefs {command} {_typed(point)}" for point, source in sources() if source == where
    ]
    if mounted:
        raise UsageError(f"{path} is what is mounted, not where: {' or '.join(mounted)}")
    if kind != "a folder":
        raise UsageError(
            f"{path} is {kind} and no mountpoint, and is not mounted: name the folder that it was"
            " mounted on"
        )


def _typed(path: object) -> str:
    """Return a path as it is to be typed in a shell."""
    return shlex.quote(str(path))


def _kind(path: Path) -> str | None:
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None


def ask_for_mountpoint(command: str) -> int:
    """List the mounts that exist, since none was named, and return the code for wrong usage."""
    tell(f"usage: bundlefs {command} [OPTIONS] MOUNTPOINT")
    for point, source in sources():
        tell(f"    bundlefs {command} {_typed(point)}    # {source}")
    tell(f"bundlefs {command}: error: the following arguments are required: MOUNTPOINT")
    return UsageError.exit_code
