"""A mount for one upload: made for it, in a folder of its own, and gone with it.

The bundle's state is where that of any mount of the image is, so that the same upload goes on.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bundlefs.base.errors import MountError
from bundlefs.fuse.mountpoint import FS_TYPE, check_fuse, find_mount, unmount
from bundlefs.upload.children import Child
from bundlefs.upload.feeds import Feed, Shown, status_of
from bundlefs.upload.words import SaidError, UploadError, tell

_LOOK_SECONDS = 0.02
_PROGRESS = "% of the image, "
_SYS_ADMIN = 21
"""The bit of CAP_SYS_ADMIN [capabilities(7)]."""


def fuse_refused() -> str | None:
    """Return why nothing can be mounted here, or None if nothing is known against it."""
    try:
        check_fuse()
    except MountError as error:
        return str(error)
    return _powerless(Path("/proc/self/status").read_text(encoding="utf-8"), os.geteuid())


def _powerless(status: str, user: int) -> str | None:
    """Return what keeps a process from mounting, as the kernel tells of it [proc(5)]."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if user == 0 and not int(fields.get("CapEff", "ffffffff"), 16) >> _SYS_ADMIN & 1:
        return "root may not mount here (it has not CAP_SYS_ADMIN)"
    if user != 0 and fields.get("NoNewPrivs", "0").strip() == "1":
        return "fusermount3 may not mount here (no_new_privs is set)"
    return None


@contextmanager
def mounted(image: Path, options: Sequence[str], work: Path) -> Iterator[Feed]:
    """Mount an image by `bundlefs mount`, and unmount it, however this ends.

    Args:
        image: its absolute path.
        options: of the command.
        work: a folder to mount in.

    Raises:
        SaidError: it cannot be mounted; it was told why.
        UploadError: the mount's process was killed.
    """
    folder = work / "bundle"
    folder.mkdir()
    words = [sys.executable, "-m", "bundlefs", "mount", "--foreground", *options]
    child = Child([*words, str(image), str(folder)], _heard)
    try:
        yield _Own(folder, child)
    finally:
        child.end()
        if find_mount(folder) == FS_TYPE:
            # It was killed before it could unmount.
            with suppress(MountError):
                unmount(folder, lazy=True)
        with suppress(OSError):
            folder.rmdir()


class _Own(Shown):
    """The mount, which ends only where something is wrong."""

    def __init__(self, folder: Path, child: Child) -> None:
        self._child = child
        while not (status := status_of(folder)):
            self._require_alive()
            time.sleep(_LOOK_SECONDS)
        super().__init__(folder, status)

    def total(self) -> int | None:
        """Return about how large all parts will be."""
        self._require_alive()
        return super().total()

    def _require_alive(self) -> None:
        if self._child.ended:
            code = self._child.process.wait()
            if code > 0:
                if "FUSE" in self._child.said:
                    tell("bundlefs-upload: where nothing can be mounted, use --without-fuse")
                raise SaidError(code)
            raise UploadError("the mount has ended; run this again to go on")


def _heard(line: str) -> None:
    # The upload tells how far it is itself.
    if _PROGRESS not in line:
        tell(line)
