"""Hearing what C code, and the helpers that it starts, say on the standard streams.

libfuse explains itself on stderr alone, in the words of fusermount3, which repeat names unescaped.
With `auto_unmount` fusermount3 stays for as long as the mount does; not every version of it lets
go of the streams that it was started with, and whoever reads those to their end waits for it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bundlefs.base.escapes import escaped

_STREAMS = (0, 1, 2)


@contextmanager
def overheard() -> Iterator[None]:
    """Lend C code other streams than the caller's, and write what it said to stderr, escaped."""
    saved = [os.dup(number) for number in _STREAMS]
    null, heard = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), os.memfd_create("messages")
    try:
        for number, other in zip(_STREAMS, (null, heard, heard), strict=True):
            os.dup2(other, number)
        yield
    finally:
        for number, own in zip(_STREAMS, saved, strict=True):
            os.dup2(own, number)
        said = os.pread(heard, os.fstat(heard).st_size, 0)
        for number in (*saved, null, heard):
            os.close(number)
        for line in os.fsdecode(said).rstrip("\n").split("\n") if said else ():
            sys.stderr.write(f"{escaped(line)}\n")
