"""The command line: arguments to configuration to exit code.

One module for each command, with two functions: `add_parser` declares its
arguments, `run` does it and gives the exit code. Heavy imports stand inside
`run`, so that `bundlefs status` does not load an event loop.

Exit codes: 0 done, 1 failed, 2 wrong usage. Results go to stdout, all else to stderr.
"""

import argparse
from collections.abc import Sequence

from bundlefs import __version__
from bundlefs.cli import bundle, manifest, mount, open, state, status, umount, unbundle, verify  # noqa: A004  # the command's name
from bundlefs.cli.common import reported
from bundlefs.daemon import stand_in_for_closed_streams


def parser() -> argparse.ArgumentParser:
    """Give the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="bundlefs",
        description="Show a raw disk image as an EC2 instance-store bundle: a read-only directory"
        " of part files and manifests, made as they are read. Any copy tool uploads it.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"bundlefs {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (mount, umount, status, state, bundle, verify, unbundle, open, manifest):
        module.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code. Every error is one line on stderr."""
    stand_in_for_closed_streams()
    arguments = parser().parse_args(argv)
    return reported(lambda: int(arguments.run(arguments)))
