"""How the handlers ask a view: what it cannot tell at once is waited for, in the event loop.

Views differ in what they can do; that is settled here, so that a handler asks all of them alike.
A view that makes nothing on demand knows everything at once, one that is not watched never
changes, and one without digests has none.

`asker` is the thread that waits for the answer, as in `waiting`.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from bundlefs.fuse.views import Fleeting, FleetingFiles, OnDemand, View, Watched, WithDigests
from bundlefs.fuse.waiting import until

E = TypeVar("E")


@functools.cache
def _has(kind: type, ability: type) -> bool:
    # Looking for the methods of a protocol takes longer than many a read.
    return issubclass(kind, ability)


def _on_demand(view: View[E]) -> OnDemand[E] | None:
    return cast("OnDemand[E]", view) if _has(type(view), OnDemand) else None


def _watched(view: View[Any]) -> Watched | None:
    return cast("Watched", view) if _has(type(view), Watched) else None


def with_digests(view: View[E], entry: E) -> WithDigests[E] | None:
    """Return the view if the entry has a digest in it, else None."""
    if not _has(type(view), WithDigests):
        return None
    digests = cast("WithDigests[E]", view)
    return digests if digests.has_digest(entry) else None


def fleeting(view: View[E]) -> FleetingFiles[E] | None:
    """Return the files that are soon not in memory, of a view that has any and has not failed."""
    if has_failed(view) or not _has(type(view), Fleeting):
        return None
    return cast("Fleeting[E]", view).fleeting()


def has_failed(view: View[Any]) -> bool:
    """Return whether a view has failed for good."""
    return _has(type(view), Fleeting) and cast("Fleeting[Any]", view).failure() is not None


async def all_entries(view: View[E], asker: int) -> Sequence[E]:
    """Return all entries once they are known."""
    if maker := _on_demand(view):
        await until(maker.when_listed(), asker)
    return view.entries()


async def size_of(view: View[E], entry: E, asker: int) -> int | None:
    """Return a size once it is known."""
    if maker := _on_demand(view):
        await until(maker.when_sized(entry), asker)
    return view.known_size(entry)


async def bytes_of(view: View[E], entry: E, offset: int, length: int, asker: int) -> bytes:
    """Return bytes of an entry once they are made and read, short only at its end."""
    data = None
    if maker := _on_demand(view):
        data = maker.read_fast(entry, offset, length)
        if data is None:
            await until(maker.when_reached(entry, offset, length), asker)
    if data is None:
        reading = view.when_read(entry, offset, length)
        await until(reading, asker)
        data = reading.result()
    # pyfuse3 takes any buffer; its annotation says bytes.
    return cast("bytes", data)


async def require_unchanged(view: View[Any], asker: int) -> None:
    """Raise the error of a view that has become another than was shown."""
    if watched := _watched(view):
        await until(watched.when_checked(), asker)


def look_at(view: View[Any]) -> Future[None] | None:
    """Have a thread see whether what is shown has changed; None if nothing can."""
    watched = _watched(view)
    return watched.look() if watched else None
