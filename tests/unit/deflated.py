"""Blocks that several modules of this folder deflate, and what libdeflate itself makes of them."""
# ruff: noqa: S311 (noise as test data keeps no secret)

from random import Random

import deflate as libdeflate

FINAL_EMPTY = b"\x03\x00"


def text(size: int) -> bytes:
    """Return words, which deflate well."""
    words = [b"block", b"final", b"stream", b"of", b"the", b"deflate", b"\n"]
    return b" ".join(Random(size).choices(words, k=size))[:size]


def final_deflate(block: bytes, level: int) -> bytearray:
    """Return libdeflate's own output, which ends in a final block."""
    return bytearray(libdeflate.deflate_compress(block, level))
