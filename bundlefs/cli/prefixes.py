"""Warnings of prefixes that bundlefs takes and at which other tools fail."""

import re

from bundlefs.base.escapes import quoted
from bundlefs.cli.streams import say

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+,=@%:-]*")


def warn_of_prefix(prefix: str) -> None:
    """Warn if other tools are going to fail at names that begin with this.

    ec2-unbundle hands them to a shell as they are, and euca-unbundle takes them for ASCII.
    """
    if not prefix.isascii():
        why = "is not ASCII, and euca-unbundle fails at such names"
    elif not _PLAIN.fullmatch(prefix):
        why = "has characters that a shell takes for its own, and ec2-unbundle fails at such names"
    else:
        return
    say(
        f"warning: the prefix {quoted(prefix)} {why}; bundlefs itself reads them. A --prefix of"
        " letters, digits, '.', '_' and '-' suits all tools"
    )
