"""What stands behind the compressed data of a file: a member, a damaged member, or something else.

gunzip and bunzip2 leave out what does not begin as a member does. So they leave out a member with
one wrong byte at its start, too, and the image comes out cut short. Here, whatever resembles a
member is taken for a damaged one.
"""

import re

from bundlefs.image.forms import Form

MOST = 1 << 20
"""Bytes that may be left out; what vendors append (signatures, metadata) is far smaller."""

_STARTS = {Form.GZIP: b"\x1f\x8b\x08", Form.BZIP2: b"BZh"}
_BLOCK = slice(4, 10)
_OF_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
"""What a block of bzip2 begins with, and what the end of a member begins with."""


def why_not_ignored(found: bytes, length: int, form: Form) -> str | None:
    """Return why what stands there must not be left out, or None if it may be.

    Args:
        found: the first `MOST` bytes of it, or all of them.
        length: how many bytes it has.
        form: gzip or bzip2.
    """
    start = _STARTS[form]
    if start.startswith(found) or _equal(found, start) > 1 or _like_a_block(found, form):
        return "a damaged member begins"
    if _later_member(form).search(found):
        return "there is a member behind something else"
    if length > MOST:
        return "there is something else, and too much of it to be left out"
    return None


def _equal(one: bytes, other: bytes) -> int:
    return sum(a == b for a, b in zip(one, other, strict=False))


def _like_a_block(found: bytes, form: Form) -> bool:
    return form is Form.BZIP2 and any(_equal(found[_BLOCK], block) > 2 for block in _OF_BLOCKS)  # noqa: PLR2004  # half


def _later_member(form: Form) -> re.Pattern[bytes]:
    if form is Form.BZIP2:
        return re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
    # With the level and system that are in use: three bytes alone come by chance.
    return re.compile(rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]", re.DOTALL)
