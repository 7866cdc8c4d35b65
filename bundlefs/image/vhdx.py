"""Whether a VHDX is a difference to a parent, as its metadata tell [MS-VHDX 2.2.3, 2.6].

Nothing more of the format is known here: qemu reads it, and says what is wrong with it.
"""

import struct
from collections.abc import Callable, Iterator
from uuid import UUID

Read = Callable[[int, int], bytes]

_REGIONS = (192 << 10, 256 << 10)
"""Where the table of regions is, and its copy."""
_TABLE = struct.Struct("<4s4xI")
_TABLE_HEADER, _METADATA_HEADER = 16, 32
_METADATA_TABLE = struct.Struct("<8s2xH")
_ENTRY = 32
_MOST_ENTRIES = 2047
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_HAS_PARENT = 1 << 1


def has_parent(read: Read) -> bool:
    """Return whether either of its tables leads to metadata that tell of a parent."""
    return any(_tells_of_parent(read, at) for start in _REGIONS for at in _metadata(read, start))


def _metadata(read: Read, start: int) -> Iterator[int]:
    magic, count = _TABLE.unpack(read(start, _TABLE.size).ljust(_TABLE.size, b"\0"))
    if magic == b"regi":
        for entry in _entries(read, start + _TABLE_HEADER, count):
            if UUID(bytes_le=entry[:16]) == _METADATA:
                yield int.from_bytes(entry[16:24], "little")


def _tells_of_parent(read: Read, start: int) -> bool:
    head = read(start, _METADATA_TABLE.size).ljust(_METADATA_TABLE.size, b"\0")
    magic, count = _METADATA_TABLE.unpack(head)
    if magic != b"metadata":
        return False
    for entry in _entries(read, start + _METADATA_HEADER, count):
        kind, at = UUID(bytes_le=entry[:16]), start + int.from_bytes(entry[16:20], "little")
        if kind == _PARENT_LOCATOR:
            return True
        if kind == _FILE_PARAMETERS and int.from_bytes(read(at + 4, 4), "little") & _HAS_PARENT:
            return True
    return False


def _entries(read: Read, at: int, count: int) -> Iterator[bytes]:
    data = read(at, min(count, _MOST_ENTRIES) * _ENTRY)
    for offset in range(0, len(data) - _ENTRY + 1, _ENTRY):
        yield data[offset : offset + _ENTRY]
