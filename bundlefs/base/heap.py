"""How the C library deals with the memory of blocks: for our own commands, not for who imports us.

glibc serves a block of 1 MiB from a heap of the thread that asks, once it has freed one, and
such heaps are many and do not shrink: 64 readers with 32 threads took 373 MiB where the same
blocks take 159 MiB when each is mapped by itself, and given back as it is freed.
"""

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
"""Their numbers [malloc.h]."""

_MAPPED_FROM = 256 << 10
_HEAPS = 2


def give_back_blocks() -> None:
    """Have what is as large as a block given back to the system when it is freed.

    Other C libraries than glibc have no `mallopt`, and do so by themselves.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_ARENA_MAX, _HEAPS)
