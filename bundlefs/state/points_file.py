"""A private file for access points: it holds plain bytes of an image, as private as a state.

It serves speed alone. Whatever is wrong with it is logged, and the points are made anew.
"""

import hashlib
import logging
from pathlib import Path

from bundlefs.state import file as statefile
from bundlefs.state.trust import UntrustedError, read_trusted

log = logging.getLogger(__name__)

_CHECKSUM = 32


class PointsFile:
    """A file of access points.

    Args:
        path: where it is, or is going to be.
        of: what identifies the thing that the points belong to; those of another are not taken.
    """

    def __init__(self, path: Path, of: bytes = b"") -> None:
        self._path = path
        self._of = of

    def load(self) -> bytes | None:
        """Return what was saved, or None if nothing was or it cannot be trusted."""
        try:
            data = read_trusted(self._path)
            return None if data is None else self._checked(data)
        except UntrustedError as error:
            _warn(f"the file of access points {self._path} is of no use: {error}")
        except ValueError as error:
            _warn(str(error))
        return None

    def _checked(self, data: bytes) -> bytes:
        saved, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
        if hashlib.sha256(saved).digest() != checksum:
            raise ValueError(f"the checksum of {self._path} does not fit")
        if not saved.startswith(self._of):
            raise ValueError(f"those in {self._path} are of another file")
        return saved.removeprefix(self._of)

    def save(self, data: bytes) -> None:
        """Replace what was saved."""
        whole = self._of + data
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            statefile.replace(self._path, whole + hashlib.sha256(whole).digest())
        except OSError as error:
            log.warning(
                "cannot keep the access points in %s: %s; they are made anew the next time",
                self._path,
                error.strerror,
            )


def _warn(why: str) -> None:
    log.warning("access points are made anew: %s", why)
