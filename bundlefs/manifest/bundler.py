"""Which tool made a bundle, as its manifest says: for people to read, and for nothing else.

The element has no effect and is not signed, so what may be read of a manifest does not depend on
it, and anything may stand in it.
"""

from contextlib import suppress
from xml.parsers import expat

_TAGS = ("name", "version", "release")
_LONGEST = 100
_FAR = 64 << 10
"""Bytes within which the element is looked for; it stands at the start."""


class _EnoughError(Exception):
    """The element has ended."""


def bundler_of(data: bytes) -> tuple[str, ...]:
    """Return name, version and release of the tool, as far as they are there.

    Args:
        data: a manifest that `parse_manifest` has taken.
    """
    trail: list[str] = []
    found: dict[str, str] = {}

    def start(tag: str, _: dict[str, str]) -> None:
        trail.append(tag)

    def end(_: str) -> None:
        if trail[:2] == ["manifest", "bundler"] and len(trail) == 2:  # noqa: PLR2004  # deep
            raise _EnoughError
        trail.pop()

    def text(data: str) -> None:
        if trail[:2] == ["manifest", "bundler"] and trail[2:] and trail[2] in _TAGS:
            found[trail[2]] = (found.get(trail[2], "") + data)[:_LONGEST]

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    with suppress(expat.ExpatError, _EnoughError):
        parser.Parse(data[:_FAR], False)  # noqa: FBT003  # takes no keyword
    return tuple(filter(None, (found.get(tag, "").strip() for tag in _TAGS)))
