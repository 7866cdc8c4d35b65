"""A block that is made again comes out the same, wherever in memory it is made.

Nothing else may live here. What a reader gets if it does not is in `test_stream_failures`.
"""

import hashlib
import struct

import pytest
from isal import isal_zlib

from bundlefs.codec.deflate import BLOCK_SIZE, codec_for

PLACES = 300


def block_lists(size: int) -> bytes:
    """Give the start of a tar stream that ISA-L deflates otherwise at one address in ten.

    So begins every small file system of mke2fs: the block lists of the inode that is kept for
    growing it, zeros but for two numbers in each block of 1 KiB.
    """
    pairs = (struct.pack("<II", 0x2000 + n, 0x6000 + n) for n in range(size // 1024))
    return b"image".ljust(512, b"\0") + b"".join(pair.ljust(1024, b"\0") for pair in pairs)


@pytest.mark.parametrize("level", [1, 2])
def test_the_bytes_are_the_same_at_any_address(level: int) -> None:
    """What was sealed by one process is made again by another, which has other addresses."""
    codec, block = codec_for(level), block_lists(BLOCK_SIZE)[:BLOCK_SIZE]
    kept: list[object] = []
    made: set[str] = set()
    for _ in range(PLACES):
        made.add(hashlib.sha256(codec.compress(block)).hexdigest())
        # It takes the room of the compressor that has just gone, so the next one lies elsewhere.
        kept.append(isal_zlib.compressobj(level, wbits=-15))
    assert len({id(compressor) >> 16 for compressor in kept}) > PLACES // 2
    assert len(made) == 1
