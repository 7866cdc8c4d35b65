"""Where sealed blocks are kept, so that a second reader costs no second compression.

Nothing here is needed for correctness: a block that is not kept is made again. There are three
places, which are asked in this order:

- *kept*: the first blocks that the frontier seals, up to a limit. It keeps the beginning and
  evicts nothing: an upload after the index pass starts at part 0, and a sequential scan through
  a least-recently-used cache would never hit.
- *recent*: the blocks used last, least recently used out first. It always exists
  (`RECENT_SIZE`), since a block is read in several pieces and by several readers.
- *spill*: all blocks, in a file without a name. The kernel removes it when the process ends,
  however it ends. A checksum guards what is read back.

What is kept is ciphertext, so no secret is written. The bundles of a mount share the limits and
the file: each has a store of its own, which `share` makes.

Concurrency: any thread may use a store. One lock guards the memory, another one guards writes to
the file, which is read with `pread`.
"""

import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from bundlefs.base.errors import UsageError
from bundlefs.base.files import open_unnamed, read_fully, write_all
from bundlefs.base.threads import asking_storage
from bundlefs.codec.deflate import crc32

log = logging.getLogger(__name__)

DEFAULT_CACHE_SIZE = 256 << 20
RECENT_SIZE = 32 << 20

Key = tuple[int, int]
"""A bundle's number in its mount, and that of a block."""


class Spill:
    """Blocks in an unnamed file: a cache of any size that cannot be left behind."""

    def __init__(self, folder: Path) -> None:
        self._file = _open_unnamed(folder)
        self._folder = folder
        self._end = 0
        self._places: dict[Key, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._full = False

    def put(self, key: Key, data: memoryview) -> None:
        """Keep `data`; after a first failure to write, keep nothing more."""
        with self._lock:
            if not self._full and key not in self._places:
                self._write(key, data)

    def _write(self, key: Key, data: memoryview) -> None:
        try:
            with asking_storage():
                write_all(self._file, data, self._end)
        except OSError as error:
            self._full = True
            log.warning(
                "block cache in %s: %s; going on without it (%d blocks are kept)",
                self._folder,
                error.strerror,
                len(self._places),
            )
        else:
            self._places[key] = (self._end, len(data), crc32(data))
            self._end += len(data)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def get(self, key: Key) -> memoryview | None:
        """Return the block if it was kept and reads back as it was written."""
        place = self._places.get(key)
        if place is None:
            return None
        offset, length, checksum = place
        try:
            with asking_storage():
                data = read_fully(self._file, offset, length)
        except OSError as error:
            data, reason = b"", error.strerror
        else:
            reason = "it does not read back as written"
        if len(data) == length and crc32(data) == checksum:
            return memoryview(data)
        self._places.pop(key, None)
        log.warning("block cache in %s: block %d dropped: %s", self._folder, key[1], reason)
        return None

    def close(self) -> None:
        """Give the space back."""
        os.close(self._file)


def _open_unnamed(folder: Path) -> int:
    try:
        return open_unnamed(folder)
    except OSError as error:
        raise UsageError(
            f"cache folder {folder}: {error.strerror}; give --cache-dir a writable folder"
        ) from error


class Store(Protocol):
    """Where the sealed blocks of one bundle go, by number. It may keep any of them, or none."""

    def put_first(self, block: int, data: memoryview) -> None:
        """Take a block that the frontier has just sealed; they come in order."""

    def put_again(self, block: int, data: memoryview) -> None:
        """Take a block that was made again: it is likely to be read on."""

    def get_fast(self, block: int) -> memoryview | None:
        """Return the block if it is in memory; never wait for a disk."""

    def get(self, block: int) -> memoryview | None:
        """Return the block if it is kept anywhere."""

    def has(self, block: int) -> bool:
        """Tell whether the block is kept anywhere (it may be gone a moment later)."""

    def keeps(self, block: int) -> bool:
        """Tell whether the block is kept to the end, as far as can be told now."""

    def share(self, bundle: int) -> "Store":
        """Return the store of another bundle, by the number that it has in its mount."""

    def drop(self) -> None:
        """Forget this bundle's blocks: nobody reads it any more."""

    def close(self) -> None:
        """Forget everything, of all bundles."""


class _Share:
    """The blocks of one bundle, in a cache that the stores of other bundles share."""

    def __init__(self, cache: "_Cache", bundle: int) -> None:
        self._cache = cache
        self._bundle = bundle

    def share(self, bundle: int) -> Store:
        """Return the store of one more bundle: limits and places are those of this one."""
        return _Share(self._cache, bundle)

    def put_first(self, block: int, data: memoryview) -> None:
        """Keep a block that the frontier has just sealed."""
        self._cache.put_first((self._bundle, block), data)

    def put_again(self, block: int, data: memoryview) -> None:
        """Keep a block that was made again: it is likely to be read on."""
        self._cache.put_again((self._bundle, block), data)

    def get_fast(self, block: int) -> memoryview | None:
        """Return the block if it is in memory; never wait for a disk."""
        return self._cache.get_fast((self._bundle, block))

    def has(self, block: int) -> bool:
        """Tell whether the block is kept anywhere (it may be gone a moment later)."""
        return (self._bundle, block) in self._cache

    def keeps(self, block: int) -> bool:
        """Tell whether the block is kept to the end, as far as can be told now."""
        return self._cache.keeps((self._bundle, block))

    def get(self, block: int) -> memoryview | None:
        """Return the block if it is kept anywhere."""
        return self._cache.get((self._bundle, block))

    def drop(self) -> None:
        """Give back the memory of this bundle's blocks: nobody reads it any more."""
        self._cache.drop(self._bundle)

    def close(self) -> None:
        """Drop everything, of all bundles."""
        self._cache.close()


class BlockStore(_Share):
    """Sealed blocks in memory up to a limit, and on disk if there is a `Spill`."""

    def __init__(self, memory: int, spill: Spill | None = None) -> None:
        super().__init__(_Cache(memory, spill), 0)


class _Cache:
    """The memory and the file that the stores of all bundles share."""

    def __init__(self, memory: int, spill: Spill | None) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[Key, memoryview] = OrderedDict()
        self._recent_size = 0
        self._kept: dict[Key, memoryview] = {}
        self._room = memory
        self._spill = spill

    def put_first(self, key: Key, data: memoryview) -> None:
        with self._lock:
            if len(data) <= self._room:
                self._room -= len(data)
                self._kept[key] = data
            else:
                self._add_recent(key, data)
        if self._spill:
            self._spill.put(key, data)

    def put_again(self, key: Key, data: memoryview) -> None:
        with self._lock:
            self._add_recent(key, data)

    def get_fast(self, key: Key) -> memoryview | None:
        with self._lock:
            data = self._kept.get(key)
            if data is None and (data := self._recent.get(key)) is not None:
                self._recent.move_to_end(key)
            return data

    def __contains__(self, key: Key) -> bool:
        return key in self._recent or self.keeps(key)

    def keeps(self, key: Key) -> bool:
        return key in self._kept or (self._spill is not None and key in self._spill)

    def get(self, key: Key) -> memoryview | None:
        data = self.get_fast(key)
        if data is None and self._spill and (data := self._spill.get(key)) is not None:
            self.put_again(key, data)
        return data

    def _add_recent(self, key: Key, data: memoryview) -> None:
        self._recent_size += len(data) - len(self._recent.pop(key, b""))
        self._recent[key] = data
        while self._recent_size > RECENT_SIZE:
            self._recent_size -= len(self._recent.popitem(last=False)[1])

    def drop(self, bundle: int) -> None:
        with self._lock:
            for key in [key for key in self._kept if key[0] == bundle]:
                self._room += len(self._kept.pop(key))
            for key in [key for key in self._recent if key[0] == bundle]:
                self._recent_size -= len(self._recent.pop(key))

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
            self._recent.clear()
        if self._spill:
            self._spill.close()
