"""Options of everything that logs."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where log lines go, and how."""

    log_file: Path | None
    log_format: str
    verbose: bool
    quiet: bool
    """Whether nobody wants to see how far something is."""
    foreground: bool
    """Whether somebody waits and reads them."""


def add_log_options(add: Callable[..., argparse.Action]) -> None:
    """Declare `LogOptions`; `add` is a parser's or a group's `add_argument`."""
    add("--log-file", metavar="FILE", type=Path, help="log here (default: stderr, or syslog)")
    add(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json writes an object per line (default: %(default)s)",
    )
    add("-v", "--verbose", action="store_true", help="log more")
    add_quiet(add)


def add_quiet(add: Callable[..., argparse.Action]) -> None:
    """Declare the option of everything that takes long."""
    add("-q", "--quiet", action="store_true", help="do not show progress: neither bars nor lines")
