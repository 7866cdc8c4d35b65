"""How mount(8) and fstab give the options of what mounts.

mount(8) can give options only by `-o`, so `-o` takes every long option of its command as well:
each is handed to the action that argparse has for it, and there is no second parser. Nothing
is opened here.
"""

import argparse
import itertools
import os
import re
from collections.abc import Collection, Sequence

from bundlefs.base.errors import UsageError
from bundlefs.base.escapes import quoted
from bundlefs.cli.streams import say

_FSNAME = "fsname"
_ACCESS = ("allow_other", "allow_root", "default_permissions", "auto_unmount")
_LIMITS = ("ro", "nodev", "nosuid", "noexec", "noatime", "sync", "dirsync")
_TO_FUSE = (*_ACCESS, *_LIMITS)
# libfuse does not know all of them in each of its versions, and nothing is ever written.
_TIMES = ("atime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime")
_MORE_TIMES = ("nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion")
# mount(8) adds some where nobody asked; here nothing is executed and nothing is a device.
_NO_LIMITS = ("rw", "dev", "suid", "exec", "async", "defaults", "silent", "loud", "subtype")
_FSTAB = ("auto", "noauto", "nofail", "_netdev", "comment", "mand", "nomand")
_WHO_MAY = ("user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup")
_DROPPED = frozenset((*_TIMES, *_MORE_TIMES, *_NO_LIMITS, *_FSTAB, *_WHO_MAY))
_NEAR = 0.7
"""The least likeness, as difflib measures it; with less, `noatime` is like all kinds of words."""


def as_command(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return a line with its command: mount.fuse3(8) gives `IMAGE DIR -o ...`, and none.

    Raises:
        UsageError: it begins with a word that is no command, and no image either.
    """
    if not words or words[0].startswith("-") or words[0] in commands:
        return list(words)
    operands = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    # `unbundel MANIFEST -o FILE` is not to be taken for an image and its mountpoint.
    if len(operands) == 2 and ("/" in words[0] or os.path.exists(words[0])):  # noqa: PLR2004, PTH110  # IMAGE and DIR; Path's raises
        return [meant_by(words), *words]
    raise UsageError(
        f"{quoted(words[0])} is neither a command nor an image"
        + (nearest(words[0], commands) or "; `bundlefs --help` lists the commands")
    )


def meant_by(words: Sequence[str]) -> str:
    """Return the command that options mean where none is named: `open` by `-o open`, or `mount`."""
    looks = argparse.ArgumentParser(prog="bundlefs", add_help=False, allow_abbrev=False)
    looks.add_argument("-o", action="append", default=[])
    texts = looks.parse_known_args(words)[0].o
    return "open" if any("open" in split(text) for text in texts) else "mount"


def split(text: str) -> list[str]:
    """Split options at commas; a backslash takes the next character as it is, as in libfuse."""
    pieces = re.findall(r"(?:\\.|[^,])+", text, re.DOTALL)
    return [re.sub(r"\\(.)", r"\1", piece, flags=re.DOTALL) for piece in pieces]


def fuse_options(kept: Sequence[str]) -> tuple[frozenset[str], str | None]:
    """Return FUSE's flags among what `-o` kept, and the last `fsname`, if there is one."""
    names = [each.partition("=")[2] for each in kept if each.startswith(_FSNAME)]
    flags = frozenset(each for each in kept if not each.startswith(_FSNAME))
    return flags, names[-1] if names else None


def nearest(name: str, names: Collection[str]) -> str:
    """Return a question whether the most similar of `names` was meant; empty if none is similar."""
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake needs it

    near = get_close_matches(name.lower(), names, 1, _NEAR)
    return f"; did you mean {near[0]!r}?" if near else ""


class MountOption(argparse.Action):
    """Does what each long option in the value does, and keeps what is FUSE's."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002  # argparse's
    ) -> None:
        """Do what the value of a `-o` says."""
        for option in split(str(values)):
            name, equals, value = option.partition("=")
            given = value if equals else None
            if action := long_option(parser, name):
                _hand_over(action, parser, namespace, option, given)
            elif name in _TO_FUSE or name == _FSNAME:
                _check_value(option, given, wanted=name == _FSNAME)
                namespace.o = [*namespace.o, option]
            elif not _is_dropped(name, parser):
                _refuse(name, parser, sloppy=namespace.sloppy)


def long_option(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    """Return the option that `name` means in `-o`, or None if there is no such long option."""
    action = parser._option_string_actions.get("--" + name.replace("_", "-"))  # noqa: SLF001  # argparse has no other way to look inside
    return None if isinstance(action, argparse._HelpAction) else action  # noqa: SLF001  # same


def _hand_over(
    action: argparse.Action,
    parser: argparse.ArgumentParser,
    namespace: argparse.Namespace,
    option: str,
    given: str | None,
) -> None:
    """Do what argparse does with a long option and its value."""
    _check_value(option, given, wanted=action.nargs != 0)
    try:
        value = [] if given is None else parser._get_value(action, given)  # noqa: SLF001  # the type that the option has
        if given is not None:
            parser._check_value(action, value)  # noqa: SLF001  # its choices
        action(parser, namespace, value, action.option_strings[-1])
    except argparse.ArgumentError as error:
        raise UsageError(f"mount option {quoted(option)}: {error.message}") from error


def _check_value(option: str, given: str | None, *, wanted: bool) -> None:
    if wanted and given is None:
        raise UsageError(f"mount option {quoted(option)} needs a value: {option}=...")
    if given is not None and not wanted:
        raise UsageError(
            f"mount option {quoted(option)}: {option.partition('=')[0]} takes no value"
        )


def _is_dropped(name: str, parser: argparse.ArgumentParser) -> bool:
    # `-o open` has chosen the command.
    chosen = parser.prog.split()[-1]
    return name in _DROPPED or name == chosen or name.startswith(("x-", "X-"))


def _refuse(name: str, parser: argparse.ArgumentParser, *, sloppy: bool) -> None:
    options = parser._option_string_actions  # noqa: SLF001  # as in long_option()
    names = [each.removeprefix("--") for each in options if long_option(parser, each[2:])]
    near = nearest(name, [*names, *_TO_FUSE, _FSNAME])
    text = f"unknown mount option {quoted(name)}{near or f'; `{parser.prog} --help` has all'}"
    if not sloppy:
        raise UsageError(text)
    say(f"warning: {text}; ignored")
