"""Where the passphrase of a private key comes from: a file, the environment, or a prompt."""

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bundlefs.base.errors import KeyFileError, UsageError
from bundlefs.cli.hardening import take_variable
from bundlefs.cli.options.keys import PASSPHRASE_VARIABLE, PassphraseOptions
from bundlefs.cli.streams import say


def passphrase(options: PassphraseOptions, key: Path | None) -> Callable[[], str]:
    """Return what finds the passphrase of `key` once it is needed.

    The variable is taken out of the environment at once, whether it is needed or not.

    Raises:
        UsageError: an option can have no effect.
    """
    file, variable = options.passphrase_file, options.passphrase_env or PASSPHRASE_VARIABLE
    _refuse_needless(options, key)
    value, _ = take_variable(variable), take_variable(PASSPHRASE_VARIABLE)

    def find() -> str:
        if file:
            return _first_line(file)
        return _ask(key, variable) if value is None else value

    return find


def _refuse_needless(options: PassphraseOptions, key: Path | None) -> None:
    file, variable = options.passphrase_file, options.passphrase_env
    given = f"--passphrase-file {file}" if file else f"--passphrase-env {variable}"
    if (file or variable) and key is None:
        raise UsageError(f"{given}: there is no private key to open; give --user-key, or leave it")
    if file and variable:
        raise UsageError(f"{given} and --passphrase-env {variable}: give one of the two")


def warn_of_access(*paths: Path | None) -> None:
    """Warn of each file with a secret that others than its owner may open."""
    for path in paths:
        if path is not None and (mode := _opened_up(path)):
            say(
                f"warning: others may open {path} (mode {mode:04o}), which holds a secret;"
                f" if nobody did, chmod 600 it"
            )


def _opened_up(path: Path) -> int:
    """Return the mode of a file that others may open, else 0.

    The group of somebody else's file may be what lets us open it, as in a container.
    """
    with suppress(OSError):
        status = path.stat()
        others = 0o077 if status.st_uid == os.geteuid() else 0o007
        if stat.S_ISREG(status.st_mode) and status.st_mode & others:
            return stat.S_IMODE(status.st_mode)
    return 0


def _ask(key: Path | None, variable: str) -> str:
    missing = "there is no terminal to ask for its passphrase"
    if sys.stdin.isatty():
        try:
            from getpass import getpass  # noqa: PLC0415  # loads terminals, and few are asked

            return getpass(f"Passphrase of {key}: ")
        except EOFError:
            missing = "no passphrase was typed"
    raise KeyFileError(
        f"{key} is encrypted and {missing}: give --passphrase-file or set {variable}"
    )


def _first_line(path: Path) -> str:
    """Read the passphrase, unless it may be somebody else's."""
    try:
        if stat.S_ISREG(mode := path.stat().st_mode) and mode & 0o022:
            raise KeyFileError(
                f"--passphrase-file {path}: others may write to it (mode {stat.S_IMODE(mode):04o});"
                " chmod 600 it"
            )
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyFileError(f"--passphrase-file {path}: {reason}") from error
