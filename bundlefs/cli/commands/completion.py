"""`bundlefs completion`: the script by which a shell completes bundlefs commands."""

import argparse
from dataclasses import dataclass

from bundlefs.cli.common import Subparsers
from bundlefs.cli.options import typed


@dataclass(frozen=True, slots=True)
class _Options:
    shell: str


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "completion",
        help="print the script by which a shell completes bundlefs commands",
        description="Print the script that SHELL sources, or finds in its folder of completions,"
        " to complete commands, options, regions and mountpoints at TAB.",
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    options = typed(_Options, arguments)
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415  # for this command alone

    print(shellcode(["bundlefs"], shell=options.shell), end="")
    return 0
