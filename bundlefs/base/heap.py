"""How the C library deals with the memory of blocks: for our own commands alone.

glibc gives each thread a heap of its own, and a heap does not shrink: 64 readers with 32
threads took 373 MiB. Two heaps for all take 244. Where memory is scarce each block is mapped by
itself and given back as it is freed, which takes 168 MiB and a quarter more of processor
time at the fastest level: the kernel clears the pages of each block anew.
"""

import ctypes
from contextlib import suppress

from bundlefs.base.memory import memory_limit

_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
"""Their numbers [malloc.h]."""

_MAPPED_FROM = 256 << 10
_HEAPS = 2
_SCARCE = 2 << 30
"""Bytes that this process may use; with less, memory counts more than time."""


def bound_heaps() -> None:
    """Keep few heaps, and where memory is scarce, none for blocks.

    Other C libraries than glibc have no `mallopt`, and do so by themselves.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _HEAPS)
        if memory_limit() < _SCARCE:
            mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
