"""What the kernel is asked for once a mount is there: larger reads, and more of them at once.

Only root may ask, and all works without. No event loop here: this runs in a thread.
"""

import contextlib
import logging
import os
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)

_FUSECTL = Path("/sys/fs/fuse/connections")
_READ_AHEAD_KIB = 1024
_MAX_BACKGROUND = 256


def tune(device: int) -> None:
    """Ask the kernel for larger and more reads at once, for the mount of a device number."""
    number = f"{os.major(device)}:{os.minor(device)}"
    _set(Path(f"/sys/class/bdi/{number}/read_ahead_kb"), _READ_AHEAD_KIB)
    knob = _FUSECTL / str(os.minor(device)) / "max_background"
    if not _set(knob, _MAX_BACKGROUND) and os.geteuid() == 0:
        _set_privately(knob, _MAX_BACKGROUND)


def _set(path: Path, value: int) -> bool:
    try:
        path.write_text(str(value), encoding="ascii")
    except OSError as error:
        log.debug("%s: %s", path, error.strerror)
        return False
    return True


def _set_privately(knob: Path, value: int) -> None:
    """Set a knob where the control file system is not mounted (in containers), seen by us alone.

    The kernel lets 12 reads of the page cache wait at a time by default: a dozen readers far
    ahead of the frontier would hold up those of parts that are made.
    """
    script = f"mount -t fusectl none {_FUSECTL} && echo {value} >{knob}"
    # A private copy of the mounts would keep alive what is unmounted meanwhile.
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # numbers alone
        log.debug("max_background: %s", done.stderr.decode("utf-8", "replace") or "set")
