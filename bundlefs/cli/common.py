"""What several commands share: their parser, types of arguments, sizes, and how errors are told.

This loads little, since each command does so first. What concerns an area has a module of its own.
"""

import argparse
import errno
import logging
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from bundlefs.base.errors import BundlefsError, MountError
from bundlefs.base.escapes import escaped
from bundlefs.base.signals import exit_code
from bundlefs.cli.streams import STDOUT, settle, tell

log = logging.getLogger(__name__)

_BROKEN_PIPE = 141


class Parser(argparse.ArgumentParser):
    """A parser whose errors, which repeat what was given, are safe to print."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and end with code 2."""
        super().error(escaped(message))


class Subparsers(Protocol):
    """Where a command adds its parser; argparse has no public name for this."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002  # the name that argparse gives it
        description: str,
        allow_abbrev: bool,
    ) -> argparse.ArgumentParser:
        """Declare a command."""


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """Read a number of bytes: 4096, 64K, 256M, 1.5G or 64MiB (powers of 1,024)."""
    # Fifteen digits are more than any machine has, and fit a float.
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 4096, 64K, 256M or 1G")
    return int(float(match[1]) * _UNITS[match[2]])


def positive(text: str) -> int:
    """Read a whole number from 1 up."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def human(count: float) -> str:
    """Write a number of bytes for a person: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004  # the step between the units
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@contextmanager
def needs_fuse() -> Iterator[None]:
    """Guard the import of what mounts: its libraries are not there on every machine.

    Raises:
        MountError: one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MountError(
            f"mounting needs the Python package {error.name}, which is not installed: install"
            " pyfuse3, the distribution's package or PyPI's; bundle, verify, unbundle and manifest"
            " do without"
        ) from error
    except ImportError as error:
        raise MountError(
            f"FUSE's library cannot be loaded ({error}): install the package fuse3"
        ) from error


def reported(work: Callable[[], int], program: str = "bundlefs") -> int:
    """Do `work` and return its exit code; every error that a user can cause is told in one line.

    The line begins with the name of the program.
    """
    try:
        return _flushed(work)
    except KeyboardInterrupt as error:
        return exit_code(error)
    except Exception as error:  # noqa: BLE001  # nobody is above, and all of it is told
        return _report(_alone(error), program)
    finally:
        settle()


def _flushed(work: Callable[[], int]) -> int:
    """Do `work`, and see that its result is out before its end is called a success."""
    try:
        code = work()
    except SystemExit:
        # argparse has shown its help.
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _alone(error: Exception) -> Exception:
    """Return the one error in a group of one, which an event loop's task raises, or the error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _report(error: Exception, program: str) -> int:
    """Print an error in a line and return the exit code; a bug is logged with its traceback."""
    code, text = 1, str(error)
    if _is_unread(error):
        # The reader, such as `| head`, has seen enough.
        return _BROKEN_PIPE
    if isinstance(error, BundlefsError):
        code = error.exit_code
    elif isinstance(error, OSError):
        log.debug("the system refused", exc_info=error)
        text = _in_words(error)
    else:
        log.error("unexpected error", exc_info=error)
        text = f"unexpected error: {error!r}"
    tell(f"{program}: {text}")
    return code


def _is_unread(error: Exception) -> bool:
    """Return whether stdout's reader is gone, even where another error has followed from that."""
    return isinstance(error, BrokenPipeError) and error.filename in (None, STDOUT)


def _in_words(error: OSError) -> str:
    if error.errno == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"too many open files: {limit} are allowed; raise the limit with `ulimit -n`"
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"
