"""Names of files in a FAT file system [Microsoft's FAT specification]."""

import struct
from collections.abc import Iterator

from bundlefs.base.spans import ceil_div
from bundlefs.image.look.window import UnreadableError, Window

_BOOT = struct.Struct("<11xHBHBHHxH8xII4xI")
_ENTRY = 32
_LONG_NAME, _FOLDER, _LABEL = 0x0F, 0x10, 0x08
_BAD = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}
"""What a cluster that cannot be used has as its next; beyond it are the ends of chains."""

_MOST_CLUSTERS = 64
_MOST_SECTORS = 512


class Fat:
    """A FAT12, FAT16 or FAT32 file system.

    Raises:
        UnreadableError: it is none.
        OSError: the read failed.
    """

    def __init__(self, disk: Window) -> None:
        self._disk = disk
        boot = disk.read(0, 512)
        sector, per, reserved, fats, roots, small, short, large, long, root = _BOOT.unpack_from(
            boot
        )
        if (
            boot[510:] != b"\x55\xaa"
            or sector not in (512, 1024, 2048, 4096)
            or not per
            or not fats
        ):
            raise UnreadableError("not FAT")
        fat = short or long
        self._table = reserved * sector
        self._root = (reserved + fats * fat) * sector
        self._root_size = roots * _ENTRY
        self._cluster = per * sector
        self._data = self._root + ceil_div(self._root_size, sector) * sector
        self._first = 0 if roots else root
        clusters = ((small or large) * sector - self._data) // self._cluster
        self._bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32  # noqa: PLR2004  # all that tells which it is

    def names(self, *path: str) -> list[str]:
        """Return the short names in a folder, such as `BOOTX64.EFI`.

        Raises:
            UnreadableError: there is no such folder.
            OSError: the read failed.
        """
        cluster = self._first
        for name in path:
            folders = {
                named: number for named, number, is_folder in self._list(cluster) if is_folder
            }
            if name not in folders:
                raise UnreadableError("no such folder")
            cluster = folders[name]
        return [name for name, _, _ in self._list(cluster)]

    def _list(self, cluster: int) -> Iterator[tuple[str, int, bool]]:
        """Yield name, first cluster and whether it is a folder."""
        data = self._content(cluster)
        for at in range(0, len(data) - _ENTRY + 1, _ENTRY):
            entry = data[at : at + _ENTRY]
            if entry[0] == 0:
                return
            kind = entry[11]
            if entry[0] == 0xE5 or kind & _LONG_NAME == _LONG_NAME or kind & _LABEL:  # noqa: PLR2004  # removed
                continue
            stem, ending = (entry[a:b].decode("latin-1").rstrip() for a, b in ((0, 8), (8, 11)))
            high, low = struct.unpack_from("<H4xH", entry, 20)
            number = low | (high << 16 if self._bits == 32 else 0)  # noqa: PLR2004  # FAT32
            yield f"{stem}.{ending}" if ending else stem, number, bool(kind & _FOLDER)

    def _content(self, cluster: int) -> bytes:
        if not cluster:
            return self._disk.read(self._root, min(self._root_size, _MOST_SECTORS * 512))
        found = b""
        for _ in range(_MOST_CLUSTERS):
            found += self._disk.read(self._data + (cluster - 2) * self._cluster, self._cluster)
            cluster = self._next(cluster)
            if not 2 <= cluster < _BAD[self._bits]:  # noqa: PLR2004  # as they are counted
                break
        return found

    def _next(self, cluster: int) -> int:
        if self._bits == 12:  # noqa: PLR2004  # FAT12
            [pair] = struct.unpack("<H", self._disk.read(self._table + cluster * 3 // 2, 2))
            return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
        width = self._bits // 8
        data = self._disk.read(self._table + cluster * width, width)
        return int.from_bytes(data, "little") & 0x0FFFFFFF
