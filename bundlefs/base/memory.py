"""How much memory this process may use: all of the machine's, or what its control groups leave.

What is *available* could be had without anybody losing more than what a file still has on disk: the
page cache counts as available, whoever has filled it.

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
_MACHINE = Path("/proc/meminfo")

_GIVEN_BACK = ("inactive_file", "active_file")
"""What a group has in the page cache; `total_` counts those below it too, which v2 always does."""


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


def available_memory(
    groups: Path = _GROUPS, own: Path = _OWN, machine: Path = _MACHINE
) -> int | None:
    """Return the bytes that could be had now, in the scarcest group; None if that is not known."""
    try:
        lines = dict(line.split(":", 1) for line in machine.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None
    return max(0, min((free, *_left(groups, own))))


def _limits(groups: Path, own: Path) -> Iterator[int]:
    """Find the limits of the groups that a process is in, and of all above [cgroup-v1, v2]."""
    for folder, limits, _ in _places(groups, own):
        with suppress(OSError, ValueError):
            # The first is the one that no process gets beyond.
            yield int((folder / limits[0]).read_text())


def _left(groups: Path, own: Path) -> Iterator[int]:
    """Find what each of these groups may still take, if it gives back its page cache."""
    for folder, limits, usage in _places(groups, own):
        for limit in limits:
            with suppress(OSError, ValueError):
                most = int((folder / limit).read_text())
                yield most - int((folder / usage).read_text()) + _in_page_cache(folder)


def _in_page_cache(folder: Path) -> int:
    fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in _GIVEN_BACK)


def _places(groups: Path, own: Path) -> Iterator[tuple[Path, tuple[str, ...], str]]:
    """Find the folder of each group and of all above, with the names of its limits and usage."""
    for root, group, limits, usage in _memberships(groups, own):
        folder = root / group.lstrip("/")
        # In a container its own group may be the root of what it sees.
        for place in (folder, *folder.parents):
            yield place, limits, usage
            if place == root:
                break


def _memberships(groups: Path, own: Path) -> Iterator[tuple[Path, str, tuple[str, ...], str]]:
    second = ("memory.max", "memory.high"), "memory.current"
    first = ("memory.limit_in_bytes",), "memory.usage_in_bytes"
    with suppress(OSError):
        for line in own.read_text(errors="surrogateescape").splitlines():
            _, kinds, group = (*line.split(":", 2), "", "")[:3]
            if not kinds:
                yield groups, group, *second
                yield groups / "unified", group, *second
            elif "memory" in kinds.split(","):
                yield groups / "memory", group, *first
