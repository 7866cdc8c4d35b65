"""The options of everything that mounts."""

import argparse
from pathlib import Path


def add_mount_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add = parser.add_argument_group("the mount").add_argument
    add("-f", "--foreground", action="store_true", help="stay, and show progress")
    add("--allow-other", action="store_true", help="let other users read it")
    add("-o", metavar="OPTION[,...]", action="append", default=[], help="FUSE options")
    add("--log-file", metavar="FILE", type=Path, help="log here (default: stderr, or syslog)")
    add("-v", "--verbose", action="store_true", help="log more")
