"""Where log lines go, and in which form: to stderr in the foreground, else to a file or syslog.

Threads and the event loop log at the same time; a handler of the library has a lock for each line.
What a line needs that only some mounts write is loaded with the first of them.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from bundlefs.base import progress
from bundlefs.base.errors import UsageError
from bundlefs.base.escapes import STREAM_ERRORS, escaped
from bundlefs.cli.options.logs import LogOptions
from bundlefs.cli.streams import say
from bundlefs.cli.waits import show_waits

_SYSLOG = Path("/dev/log")


def set_up_logging(options: LogOptions) -> None:
    """Set up the root logger of a process that mounts or bundles."""
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(handlers=_handlers(options), level=level, force=True)
    show_waits(quiet=options.quiet)
    # pyfuse3 logs each task that it starts.
    logging.getLogger("pyfuse3").setLevel(logging.INFO)


def _handlers(options: LogOptions) -> list[logging.Handler]:
    stderr = _AboveTheBar()
    journal = _Journal("%(message)s") if _to_journal() else None
    stderr.setFormatter(_json(options) or journal or _Lines("bundlefs: %(levelname)s: %(message)s"))
    if options.foreground and not options.log_file:
        stderr.addFilter(lambda record: not _is_drawn(record))
        return [stderr]
    # Until it has gone to the background, the user is there to read what matters, and waits.
    stderr.addFilter(
        lambda record: (
            record.levelno >= logging.WARNING
            or (record.name == progress.log.name and not _is_drawn(record))
        )
    )
    kept = _kept(options.log_file)
    if kept and (form := _json(options)):
        kept.setFormatter(form)
    return [stderr, kept] if kept else [stderr]


def _is_drawn(record: logging.LogRecord) -> bool:
    """Return whether a bar shows what a line has to say."""
    return record.name == progress.log.name and sys.stderr.isatty()


def _kept(path: Path | None) -> logging.Handler | None:
    handler: logging.Handler
    if path:
        try:
            handler = _File(path, encoding="utf-8", errors=STREAM_ERRORS)
        except OSError as error:
            raise UsageError(f"--log-file {path}: {error.strerror}") from error
        handler.setFormatter(_Lines("%(asctime)s %(levelname)s: %(message)s"))
        return handler
    if not _SYSLOG.exists():
        return None
    handler = _syslog()
    handler.setFormatter(_Lines("bundlefs[%(process)d]: %(levelname)s: %(message)s"))
    return handler


def _to_journal() -> bool:
    """Return whether stderr is the journal's own stream [systemd.exec(5), JOURNAL_STREAM]."""
    try:
        about = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


def _json(options: LogOptions) -> logging.Formatter | None:
    return _Json() if options.log_format == "json" else None


class _TellsOnce(logging.Handler):
    """Says once, on stderr, that its lines are lost; logging itself shows a traceback for each."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            say(f"warning: log lines are lost, {self.place()}: {error.strerror or error}")

    def place(self) -> str:
        """Return what cannot be written to."""
        return str(_SYSLOG)


class _File(_TellsOnce, logging.FileHandler):
    def place(self) -> str:
        return self.baseFilename


def _syslog() -> logging.Handler:
    """Make what writes to syslog, of a class that is there where there is syslog."""
    from logging.handlers import SysLogHandler  # noqa: PLC0415  # loads what only this needs

    class Syslog(_TellsOnce, SysLogHandler):
        pass

    return Syslog(str(_SYSLOG))


class _Lines(logging.Formatter):
    """Writes a line for each record, whatever its names have; a traceback is indented below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802  # logging's
        text = escaped(super().formatException(ei), keep="\n")
        return "\n".join(f"  {line}" for line in text.split("\n"))


class _Json(_Lines):
    """Writes an object a line: time (RFC 3339, UTC), level, logger, message, exception's text."""

    def format(self, record: logging.LogRecord) -> str:
        from datetime import UTC, datetime  # noqa: PLC0415  # for this form of log alone
        from json import dumps  # noqa: PLC0415  # same

        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": escaped(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return dumps(fields)


class _Journal(_Lines):
    """Writes lines with the priorities of sd-daemon(3); the journal adds the time by itself."""

    _PRIORITIES = (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
    )

    def format(self, record: logging.LogRecord) -> str:
        level = next((code for least, code in self._PRIORITIES if record.levelno >= least), 7)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).split("\n"))


class _AboveTheBar(logging.Handler):
    """Writes to stderr without tearing a progress bar.

    As with every handler of the library, a stderr that nobody reads any more harms nobody:
    an exception here would end whoever logs, be it the mount or the thread that seals.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self.format(record))
        except Exception:  # noqa: BLE001  # what the library's own handlers do
            self.handleError(record)


def _write(line: str) -> None:
    """Write a line to stderr, above a bar if there may be one: to draw it `bars` was loaded."""
    if "bundlefs.cli.bars" in sys.modules:
        from bundlefs.cli.bars import Bar  # noqa: PLC0415  # waits for whoever is loading it

        Bar.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)
