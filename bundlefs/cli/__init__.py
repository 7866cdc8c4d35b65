"""The command line, from its words to an exit code.

Each command has a module in `commands` with two functions: `add_parser` declares its arguments,
and `run` does what they ask and returns the exit code. `run` begins by giving what was parsed a
type (`options`); argparse goes no further. A command line that begins with the name of a command
loads the module of that one alone, so that `bundlefs status` is quick.

Exit codes are 0 for done, 1 for failed, and 2 for wrong usage. Results go to stdout, and all else
goes to stderr.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence

from bundlefs import __version__
from bundlefs.base import signals
from bundlefs.base.threads import leave, leave_if_abandoned
from bundlefs.cli import _early, misuse, streams  # noqa: F401  # first, for what it does
from bundlefs.cli.common import Parser, reported
from bundlefs.cli.hardening import rule_out_core_dumps
from bundlefs.cli.mountopts import as_command

WITH_SECRETS = ("mount", "bundle", "verify", "unbundle", "open", "manifest", "inspect")
"""The commands that have keys or a plain image in memory."""
COMMANDS = (
    "mount",
    "umount",
    "status",
    "state",
    "inspect",
    "bundle",
    "verify",
    "unbundle",
    "open",
    "manifest",
    "completion",
)


def parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands."""
    top = Parser(
        prog="bundlefs",
        description="Show a raw disk image as an EC2 instance-store bundle: a read-only directory"
        " of part files and manifests, made as they are read. Any copy tool uploads it.",
        allow_abbrev=False,
    )
    top.add_argument("-V", "--version", action="version", version=f"bundlefs {__version__}")
    parsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        importlib.import_module(f"bundlefs.cli.commands.{command}").add_parser(parsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Every error is one line on stderr."""
    streams.prepare()
    if "_ARGCOMPLETE" in os.environ:
        from bundlefs.cli.completers import answer  # noqa: PLC0415  # only a shell's question does

        answer(parser, COMMANDS)
    code = reported(lambda: _run(sys.argv[1:] if argv is None else argv))
    if signals.is_program():
        leave(code)
    leave_if_abandoned(code)
    return code


def _run(given: Sequence[str]) -> int:
    words = as_command(misuse.as_help(given, COMMANDS), COMMANDS)
    if words[:1] and words[0] in COMMANDS:
        return run(parser(words[:1]).parse_args(words))
    top = parser()
    if not words:
        top.print_help(sys.stderr)
        top.exit(2, "bundlefs: error: the following arguments are required: COMMAND\n")
    misuse.refuse_option_first(words, _options(top))
    return run(top.parse_args(words))


def run(arguments: argparse.Namespace) -> int:
    """Run what was parsed and return its exit code."""
    if arguments.command in WITH_SECRETS:
        rule_out_core_dumps()
    with signals.raised():
        return int(arguments.run(arguments))


def _options(top: argparse.ArgumentParser) -> dict[str, Collection[str]]:
    """Return the options of each command."""
    [commands] = [each for each in top._actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001  # argparse has no other way to look inside
    return {name: each._option_string_actions.keys() for name, each in commands.choices.items()}  # noqa: SLF001  # same
