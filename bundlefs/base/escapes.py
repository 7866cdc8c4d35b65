r"""How names are written for people: in one way, for every stream, log and message.

A file name is bytes, and may hold anything but a slash: bytes that are not UTF-8, an escape
sequence for the terminal, a line break that begins a line of a log anew. What cannot be printed
is written as repr() writes it, so that it is the same in messages with quotes, in Python's own
errors and in JSON: `\n`, `\x1b`, `\u202e`, and `\udce9` for a byte E9 that is not UTF-8.

Text that is escaped already stays as it is. It imports nothing of ours, so that every layer may
use it; data for programs (images, manifests, JSON) does not pass here.
"""

from collections.abc import Collection

STREAM_ERRORS = "backslashreplace"
"""How a text stream writes what its encoding has not."""

_LONGEST_CITATION = 80


def escaped(text: str, keep: Collection[str] = ()) -> str:
    """Return `text` fit for a terminal and for any log; `keep` names what stays as it is."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text
    )


def quoted(name: str) -> str:
    """Return a name in quotes, for messages where it could be taken for a part of the sentence."""
    return f"'{escaped(name)}'"


def cite(text: str | bytes) -> str:
    """Return in quotes what an untrusted file says: escaped, on one line, cut to 80 characters."""
    shown = repr(text[:_LONGEST_CITATION])
    if len(shown) <= _LONGEST_CITATION:
        return shown
    return f"{shown[: _LONGEST_CITATION - 2]}…{shown[-1]}"
