"""From a checked command line to a running mount: background or not, logging, progress."""

import logging
import logging.handlers
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bundlefs.bundle import Bundle
from bundlefs.daemon import in_background
from bundlefs.errors import BundlefsError, UsageError
from bundlefs.mount import Session, serve
from bundlefs.workers import Workers

log = logging.getLogger(__name__)

_SYSLOG = Path("/dev/log")


@dataclass(frozen=True, slots=True)
class Mounting:
    """All that `start` needs; `make` makes the bundle once threads may be started."""

    make: Callable[[Workers], Bundle]
    image: Path
    mountpoint: Path
    jobs: int
    eager: bool
    options: frozenset[str]
    umask: int
    foreground: bool
    log_file: Path | None
    verbose: bool


def start(mounting: Mounting) -> int:
    """Mount in the foreground until the end, or in the background until it is ready."""
    if mounting.foreground:
        return _work(mounting, lambda: None)
    return in_background(lambda ready: _work(mounting, ready))


def _work(mounting: Mounting, ready: Callable[[], None]) -> int:
    _set_up_logging(mounting)
    progress = _progress(mounting)
    try:
        with Workers(mounting.jobs) as workers:
            bundle = mounting.make(workers)
            if mounting.eager:
                bundle.complete()
            session = Session(
                mounting.mountpoint, str(mounting.image), mounting.options, mounting.umask
            )
            try:
                serve(bundle, session, ready, progress and (lambda: progress(bundle)))
            finally:
                bundle.close()
    except BundlefsError as error:
        print(f"bundlefs: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        log.exception("the mount ended by an unexpected error")
        print("bundlefs: unexpected error; see the log", file=sys.stderr)
        return 1
    return 0


def _set_up_logging(mounting: Mounting) -> None:
    handler = _log_handler(mounting)
    handler.setFormatter(logging.Formatter("bundlefs[%(process)d]: %(levelname)s: %(message)s"))
    logging.basicConfig(
        handlers=[handler], level=logging.DEBUG if mounting.verbose else logging.INFO, force=True
    )
    # pyfuse3 logs each task that it starts.
    logging.getLogger("pyfuse3").setLevel(logging.INFO)


def _log_handler(mounting: Mounting) -> logging.Handler:
    if mounting.log_file:
        try:
            return logging.FileHandler(mounting.log_file, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--log-file {mounting.log_file}: {error.strerror}") from error
    if mounting.foreground:
        return _AboveTheBar()
    if _SYSLOG.exists():
        return logging.handlers.SysLogHandler(str(_SYSLOG))
    return logging.NullHandler()


class _AboveTheBar(logging.Handler):
    """Writes to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _progress(mounting: Mounting) -> Callable[[Bundle], None] | None:
    if not mounting.foreground:
        return None
    return _Bar() if sys.stderr.isatty() else _Lines()


class _Bar:
    """A progress bar that is there while the index pass is."""

    def __init__(self) -> None:
        self._bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None)
        self._bar.clear()

    def __call__(self, bundle: Bundle) -> None:
        status = bundle.status()
        if status.phase == "indexing":
            self._bar.total = status.tar_size
            self._bar.update(status.tar_bytes_done - self._bar.n)
        else:
            self._bar.clear()


class _Lines:
    """A log line for each tenth of the index pass."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, bundle: Bundle) -> None:
        status = bundle.status()
        tenths = 10 * status.tar_bytes_done // status.tar_size
        if tenths > self._told:
            self._told = tenths
            log.info("%d %% of the image, %d parts made", 10 * tenths, status.parts_made)
