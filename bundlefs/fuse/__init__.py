"""The file system: what a mount shows, the FUSE handlers, and the session from mount to end.

This is the home of trio and pyfuse3, and of what is asked of mounts from outside (`mountpoint`,
which needs neither). Bundles and disks are known by the protocols in `views` alone.

One read: the kernel's request comes to a handler in `operations`; `inodes` tells which entry of
which view is meant; `asking` asks that view and waits (`waiting`) for its future; what goes wrong
becomes an errno in `handlers`.
"""
