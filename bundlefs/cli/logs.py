"""Where log lines go: stderr in the foreground, else a file or syslog."""

import argparse
import logging
import logging.handlers
import sys
from pathlib import Path

from tqdm import tqdm

from bundlefs.errors import UsageError

_SYSLOG = Path("/dev/log")


def set_up_logging(arguments: argparse.Namespace) -> None:
    """Set up the root logger for a mount's process."""
    level = logging.DEBUG if arguments.verbose else logging.INFO
    logging.basicConfig(handlers=_handlers(arguments), level=level, force=True)
    # pyfuse3 logs each task that it starts.
    logging.getLogger("pyfuse3").setLevel(logging.INFO)


def _handlers(arguments: argparse.Namespace) -> list[logging.Handler]:
    stderr = _AboveTheBar()
    stderr.setFormatter(logging.Formatter("bundlefs: %(levelname)s: %(message)s"))
    if arguments.foreground and not arguments.log_file:
        return [stderr]
    # Until it has gone to the background, the user is there to read what matters.
    stderr.setLevel(logging.WARNING)
    kept = _kept(arguments.log_file)
    return [stderr, kept] if kept else [stderr]


def _kept(path: Path | None) -> logging.Handler | None:
    handler: logging.Handler
    if path:
        try:
            handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--log-file {path}: {error.strerror}") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        return handler
    if not _SYSLOG.exists():
        return None
    handler = logging.handlers.SysLogHandler(str(_SYSLOG))
    handler.setFormatter(logging.Formatter("bundlefs[%(process)d]: %(levelname)s: %(message)s"))
    return handler


class _AboveTheBar(logging.Handler):
    """Writes to stderr without tearing a progress bar.

    As with every handler of the library, a stderr that nobody reads any more harms nobody:
    an exception here would end whoever logs, be it the mount or the thread that seals.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # noqa: BLE001  # what the library's own handlers do
            self.handleError(record)
