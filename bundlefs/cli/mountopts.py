"""The options of everything that mounts, and how mount(8) gives them.

mount(8) and fstab know no other way than `-o`, so it takes every long option of the command
as well, as `name=value`. Those become words of the command line, and argparse alone judges them.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from bundlefs.errors import UsageError

_TO_FUSE = frozenset(
    {"allow_other", "allow_root", "auto_unmount", "default_permissions", "max_read", "ro"}
    | {"nodev", "nosuid", "noexec", "noatime", "nodiratime", "sync", "async", "dirsync"}
)
# What mount(8) adds or keeps to itself, and what means nothing to a read-only view.
_DROPPED = frozenset(
    {"rw", "dev", "suid", "exec", "defaults", "silent", "loud", "subtype", "comment"}
    | {"atime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime"}
    | {"auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group"}
)
_OPEN = "open"


def add_mount_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add = parser.add_argument_group("the mount").add_argument
    add("-f", "--foreground", action="store_true", help="stay, and show progress")
    add("--allow-other", action="store_true", help="let other users read it")
    add(
        "-o",
        metavar="OPTION[,...]",
        action="append",
        default=[],
        help="FUSE options, and all long options as NAME=VALUE, as mount(8) and fstab give them",
    )
    add_log_options(add)


def add_log_options(add: Callable[..., argparse.Action]) -> None:
    """Declare where log lines go and how; `add` is a parser's or a group's `add_argument`."""
    add("--log-file", metavar="FILE", type=Path, help="log here (default: stderr, or syslog)")
    add(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json: an object a line (default: %(default)s)",
    )
    add("-v", "--verbose", action="store_true", help="log more")


def as_command(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """Give `IMAGE DIR -o ...`, which is how mount.fuse3(8) calls, the command that it means.

    That is `open` if `open` is among the options, else `mount`. Any other line stays as it is.
    """
    if not words or words[0].startswith("-") or words[0] in commands:
        return list(words)
    options = [option for _, text in _parted(words) for option in split(text or "")]
    if not options:
        return list(words)
    return [_OPEN if _OPEN in options else "mount", *words]


def split(text: str) -> list[str]:
    """Part options at commas; a backslash takes the next character as it is, as in libfuse."""
    return [re.sub(r"\\(.)", r"\1", one) for one in re.findall(r"(?:[^,\\]|\\.?)+", text)]


def expanded(words: Sequence[str], known: Collection[str], *, sloppy: bool = False) -> list[str]:
    """Put long options in the place of what `-o` holds, but for those of FUSE.

    Args:
        words: of a command line, after the command.
        known: the command's long options, with their dashes.
        sloppy: warn of an option that nobody knows, as mount(8) -s asks.

    Raises:
        UsageError: nobody knows an option; the text names it.
    """
    result: list[str] = []
    for word, text in _parted(words):
        if text is None:
            result.append(word)
            continue
        for option in split(text):
            result += _translated(option, known, sloppy=sloppy)
    return result


def _parted(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Give each word with the text of its -o, or None; a lone -o at the end stays a word."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield word, None
            yield from ((each, None) for each in rest)
        elif word == "-o":
            text = next(rest, None)
            yield word, text
        else:
            yield word, word[2:] if word.startswith("-o") else None


def _translated(option: str, known: Collection[str], *, sloppy: bool) -> list[str]:
    name, equals, value = option.partition("=")
    long = "--" + name.replace("_", "-")
    if long in known and long != "--help":
        return [f"{long}{equals}{value}"]
    if name in _TO_FUSE:
        return ["-o", option]
    if name in _DROPPED or name == _OPEN or name.startswith(("x-", "X-")):
        return []
    text = f"unknown mount option {name!r}{_nearest(name, known)}"
    if not sloppy:
        raise UsageError(text)
    print(f"bundlefs: warning: {text}; ignored", file=sys.stderr)
    return []


def _nearest(name: str, known: Collection[str]) -> str:
    names = [*(long.removeprefix("--") for long in known), *_TO_FUSE]
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else "; `bundlefs mount --help` has all"
