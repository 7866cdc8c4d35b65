"""`bundlefs completion`: what a shell sources to complete bundlefs commands."""

import argparse

from bundlefs.cli.common import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete bundlefs commands",
        description="Print the script that SHELL sources, or finds in its folder of completions,"
        " to complete commands, options, regions and mountpoints at TAB.",
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    # No other command should wait for it.
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415

    print(shellcode(["bundlefs"], shell=arguments.shell), end="")
    return 0
