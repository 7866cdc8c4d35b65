"""Where states are kept unless the user names a place."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

_LONGEST_NAME = 200
"""Bytes of an image's name in that of its state file: file systems take 255 in all."""


def default_folder() -> Path:
    """Return the folder of the state files: $XDG_STATE_HOME/bundlefs, or the system's for root."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative one is to be ignored [XDG Base Directory Specification].
    if home.is_absolute():
        return home / "bundlefs"
    # A user without a home cannot write to the system's folder either, and is told so there.
    with suppress(RuntimeError):
        if os.geteuid() != 0:
            return Path.home() / ".local" / "state" / "bundlefs"
    return Path("/var/lib/bundlefs")


def default_path(image: Path, prefix: str) -> Path:
    """Return the state file of an image under a prefix.

    A file is known by its real path. A block device is known by the name that it is given: where
    /dev/VOLUMES/NAME points to may be another device after a reboot.
    """
    # realpath() has an answer for links in a circle too.
    named = os.path.abspath if image.is_block_device() else os.path.realpath
    where = Path(named(image))
    place = os.fsencode(where) + b"\0" + os.fsencode(prefix)
    name = os.fsdecode(os.fsencode(where.name)[:_LONGEST_NAME])
    return default_folder() / f"{name}-{hashlib.sha256(place).hexdigest()[:16]}.state"


def points_path(image: Path) -> Path:
    """Return the file for the access points of a compressed image, one for all its prefixes."""
    return default_path(image, "").with_suffix(".points")
