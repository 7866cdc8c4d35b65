"""How much memory this process may use: all of the machine's, or what its control groups leave.

Of blocks only their size is known here, to tell how many of them are a small part of it all.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_BLOCK = 1 << 20
_PART = 32
"""Blocks under way take three to four times their size, and are to take a tenth of all memory."""

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def memory_limit(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Return the bytes that this process may use, by the lowest limit that is set."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((machine, *_limits(groups, own)))


def share_of_memory(most: int) -> int:
    """Return `most`, or a quarter of what this process may use if that is less."""
    return min(most, memory_limit() // 4)


def blocks_in_memory() -> int:
    """Return how many blocks may be under way at a time, 2 or more."""
    return max(2, memory_limit() // (_PART * _BLOCK))


def _limits(groups: Path, own: Path) -> Iterator[int]:
    """Find the limits of the groups that a process is in, and of all above [cgroup-v1, v2]."""
    for root, group, name in _memberships(groups, own):
        folder = root / group.lstrip("/")
        # In a container its own group may be the root of what it sees.
        for place in (folder, *folder.parents):
            with suppress(OSError, ValueError):
                yield int((place / name).read_text())
            if place == root:
                break


def _memberships(groups: Path, own: Path) -> Iterator[tuple[Path, str, str]]:
    with suppress(OSError):
        for line in own.read_text(errors="surrogateescape").splitlines():
            _, kinds, group = (*line.split(":", 2), "", "")[:3]
            if not kinds:
                yield groups, group, "memory.max"
                yield groups / "unified", group, "memory.max"
            elif "memory" in kinds.split(","):
                yield groups / "memory", group, "memory.limit_in_bytes"
