"""`bundlefs umount`: end a mount, also one whose process is gone."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from bundlefs.cli.common import Subparsers
from bundlefs.cli.misuse import ask_for_mountpoint, refuse_source
from bundlefs.cli.options import typed
from bundlefs.fuse.mountpoint import unmount


@dataclass(frozen=True, slots=True)
class _Options:
    mountpoint: Path | None
    lazy: bool


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "umount",
        help="unmount and wait for the mount's process to end",
        description="Unmount MOUNTPOINT and wait until its process has ended.",
        allow_abbrev=False,
    )
    # argparse does not require it: we have more to say when it is missing.
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT", nargs="?")
    parser.add_argument(
        "-l",
        "--lazy",
        action="store_true",
        help="detach at once; end when nobody uses it any more",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Unmount."""
    options = typed(_Options, arguments)
    if options.mountpoint is None:
        return ask_for_mountpoint("umount")
    refuse_source("umount", options.mountpoint)
    unmount(options.mountpoint, lazy=options.lazy)
    return 0
