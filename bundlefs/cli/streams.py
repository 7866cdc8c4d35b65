"""Standard streams that a command can rely on, and the lines for people that go there.

No name in a line can make a stream fail or reach the terminal raw. Whatever happens to stderr, the
exit code stays. The interpreter's last flush of stdout does not change it either: what can go
wrong with stdout has gone wrong and was told by then.
"""

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from bundlefs.base.escapes import STREAM_ERRORS, escaped
from bundlefs.fuse.daemon import stand_in_for_closed_streams

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = "standard output"
"""The file name in an OSError of stdout."""


def prepare() -> None:
    """Set up the process's own stdout and stderr; streams that replaced them stay."""
    stand_in_for_closed_streams()
    stdout, stderr = sys.stdout, sys.stderr
    # A test runner's, for instance, or those of an earlier call.
    if isinstance(stdout, io.TextIOWrapper) and stdout is sys.__stdout__:
        # Python's own choice: by lines on a terminal or where it was told not to keep any.
        by_lines = stdout.line_buffering or stdout.write_through
        sys.stdout = _text(_Stdout(1, "w", closefd=False), stdout.encoding, by_lines=by_lines)
    if isinstance(stderr, io.TextIOWrapper) and stderr is sys.__stderr__:
        sys.stderr = _text(_Stderr(2, "w", closefd=False), stderr.encoding, by_lines=True)


def say(text: str) -> None:
    """Print a line of `bundlefs:` on stderr."""
    tell(f"bundlefs: {text}")


def print_warning(text: str) -> None:
    """Warn the user who waits for the command."""
    say(f"warning: {text}")


def tell(text: str) -> None:
    """Print a line on stderr."""
    print(escaped(text), file=sys.stderr)


def show(text: str = "") -> None:
    """Print a line of a result on stdout."""
    print(escaped(text))


def settle() -> None:
    """Empty stdout's buffer, or drop what cannot be written: Python would end with code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def _text(raw: io.FileIO, encoding: str, *, by_lines: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=STREAM_ERRORS, line_buffering=by_lines
    )


class _Patient(io.FileIO):
    """Waits for a stream that a caller has set to return at once (O_NONBLOCK)."""

    def write(self, data: "ReadableBuffer", /) -> int:
        while (done := super().write(data)) is None:
            select.select([], [self.fileno()], [])
        return done


class _Stdout(_Patient):
    """Names stdout in its errors."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Stderr(_Patient):
    """Drops what nobody reads any more: whoever logs has other things to do."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
