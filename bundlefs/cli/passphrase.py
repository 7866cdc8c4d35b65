"""Where the passphrase of a private key comes from: a file, the environment, or a prompt."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bundlefs.errors import KeyFileError


def add_passphrase_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare the options."""
    parser.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, help="its first line opens the private key"
    )
    parser.add_argument(
        "--passphrase-env",
        metavar="NAME",
        default="BUNDLEFS_PASSPHRASE",
        help="environment variable that opens the private key (default: %(default)s)",
    )


def passphrase(arguments: argparse.Namespace, key: Path | None) -> Callable[[], str]:
    """Give what finds the passphrase of `key` once it is needed."""

    def find() -> str:
        if arguments.passphrase_file:
            return _first_line(arguments.passphrase_file)
        if arguments.passphrase_env in os.environ:
            return os.environ[arguments.passphrase_env]
        return _ask(key, arguments.passphrase_env)

    return find


def _ask(key: Path | None, variable: str) -> str:
    missing = "there is no terminal to ask for its passphrase"
    if sys.stdin.isatty():
        try:
            return getpass.getpass(f"Passphrase of {key}: ")
        except EOFError:
            missing = "no passphrase was typed"
    raise KeyFileError(
        f"{key} is encrypted and {missing}: give --passphrase-file or set {variable}"
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyFileError(f"--passphrase-file {path}: {reason}") from error
