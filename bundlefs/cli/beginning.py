"""How every process that mounts begins: its log, its memory, and where and how it mounts."""

from pathlib import Path

from bundlefs.base.files import umask
from bundlefs.base.heap import bound_heaps
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.mountopts import fuse_options
from bundlefs.cli.options.mounting import MountOptions
from bundlefs.fuse.mountpoint import check_mountpoint
from bundlefs.fuse.session import Session


def begin(options: MountOptions, source: Path) -> Session:
    """Set up the process, and return how `source` is to be mounted.

    Raises:
        MountError: the mountpoint cannot be mounted on, or FUSE is not there.
        UsageError: the log file cannot be opened.
    """
    set_up_logging(options.log)
    bound_heaps()
    flags, name = fuse_options(options.o)
    return Session(
        mountpoint=check_mountpoint(options.mountpoint),
        source=name or str(source.absolute()),
        options=flags | ({"allow_other"} if options.allow_other else set()),
        umask=umask(),
    )
