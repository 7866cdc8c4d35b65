"""Sizes of tar's format that its writer (`tar`) and its reader (`untar`) have to agree on.

[GNU tar, src/tar.h]
"""

BLOCK = 512
"""Bytes of a header; data is padded to a multiple of them."""

SPARSE = b"S"
"""Type of an old-style GNU sparse member."""

ENTRY = 24
"""Bytes of an entry of the sparse map: an offset and a length, 12 bytes each."""

ENTRIES_IN_HEADER = 4
ENTRIES_IN_EXTENSION = 21
