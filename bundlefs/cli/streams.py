"""Standard streams that a command can rely on, and lines for people on them.

A name in a line never fails a stream and never reaches the terminal raw. What happens to
stderr changes no exit code, and no interpreter's last flush of a stream does either: what
can go wrong with stdout has gone wrong before, and was told.
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
"""What an OSError of stdout has for a file name."""


def prepare() -> None:
    """Make the process's own stdout and stderr such; streams that a program put there stay."""
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


def tell(text: str) -> None:
    """Print a line on stderr."""
    print(escaped(text), file=sys.stderr)


def show(text: str = "") -> None:
    """Print a line of a result on stdout."""
    print(escaped(text))


def settle() -> None:
    """Leave nothing in stdout's buffer that cannot be written: Python would end with code 120."""
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
    """Waits where a caller has set the stream to return at once (O_NONBLOCK)."""

    def write(self, data: "ReadableBuffer", /) -> int:
        while (done := super().write(data)) is None:
            select.select([], [self.fileno()], [])
        return done


class _Stdout(_Patient):
    """Says of an error that it is stdout's."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Stderr(_Patient):
    """Takes what nobody reads any more for written: whoever logs has other things to do."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
