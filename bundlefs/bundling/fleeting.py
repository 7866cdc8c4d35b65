"""Parts that were made a moment ago and are in memory for a moment more: who wants them is told.

Nothing is made here, and nothing is kept. What the store keeps to the end needs nobody else to keep
it, and is not offered.

Concurrency: `progress` is called by who has the frontier's turn, and so is what it tells. Any
thread may ask for bytes; one thread counts what the kernel was given.
"""

from collections.abc import Callable

from bundlefs.base.spans import Span
from bundlefs.bundling.names import Entry, Part
from bundlefs.bundling.stream import SealedStream
from bundlefs.state.index import Index

_LAST_PARTS = 4
"""More than can be in memory for the moment alone."""


class FleetingParts:
    """The whole parts of one bundle.

    Attributes:
        given: how many bytes of them the kernel was given to keep.
    """

    def __init__(self, index: Index, stream: SealedStream) -> None:
        self._index = index
        self._stream = stream
        self._tell: Callable[[Entry], None] | None = None
        self._told = len(index.part_digests)
        self.given = 0

    def on_made(self, tell: Callable[[Entry], None]) -> list[Entry]:
        """Have `tell` called with each part as it is whole, and return the last that are by now.

        One of those may be told as well. `tell` raises nothing, and the pass waits while it runs.
        """
        self._tell = tell
        made = len(self._index.part_digests)
        return [Part(number) for number in range(max(0, made - _LAST_PARTS), made)]

    def progress(self) -> None:
        """Tell of the parts that the last block has made whole."""
        first, self._told = self._told, len(self._index.part_digests)
        if self._tell:
            for number in range(first, self._told):
                self._tell(Part(number))

    def bytes_of(self, entry: Entry) -> list[memoryview] | None:
        """Return the bytes of a whole part, or None if they are kept to the end or not in memory.

        They are in pieces of any length.
        """
        if not isinstance(entry, Part):
            return None
        return self._stream.passing(entry.span.clip(Span(0, self._index.position)))

    def note_given(self, length: int) -> None:
        """Count what the kernel was given."""
        self.given += length
