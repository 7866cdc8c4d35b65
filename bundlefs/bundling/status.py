"""Where a bundle stands, in numbers, for people and for programs."""

import time
from dataclasses import dataclass

from bundlefs.bundling.fleeting import FleetingParts
from bundlefs.bundling.frontier import Frontier
from bundlefs.bundling.maker import Maker
from bundlefs.bundling.names import Names, Part
from bundlefs.codec.deflate import BLOCK_SIZE
from bundlefs.image.source import Source
from bundlefs.state.index import Index


@dataclass(frozen=True, slots=True)
class Status:
    """Where a bundle stands; all sizes in bytes.

    `phase` is `idle` (nothing asked for), `indexing` (the frontier moves), `complete` or `failed`.
    `blocks_made_again` of `blocks_compressed` had been compressed before; `page_cache_bytes` is
    what the kernel was given to keep, and may have dropped since. `storage_silent_seconds` is for
    how long the image's storage has not answered a read, and 0 while it answers within a second.
    `first_part` is the name of part 0: the others count up from there, by as many digits.
    `index_file` is the name of the index that travels with the bundle, if one does.
    """

    phase: str
    image: str
    first_part: str
    manifests: tuple[str, ...]
    index_file: str | None
    image_size: int
    image_bytes_read: int
    tar_size: int
    tar_bytes_done: int
    parts_made: int
    sealed_bytes: int
    blocks_compressed: int
    blocks_made_again: int
    page_cache_bytes: int
    seconds: float
    pass_seconds: float
    storage_silent_seconds: float
    error: str | None


class Standing:
    """Knows where to look for the numbers. Reading them never waits; from any thread."""

    def __init__(  # noqa: PLR0913, PLR0917  # all that it tells of
        self,
        image: Source,
        names: Names,
        index: Index,
        maker: Maker,
        frontier: Frontier,
        parts: FleetingParts,
    ) -> None:
        self._started = time.monotonic()
        self._image = image
        self._first_part = names.name(Part(0))
        self._manifests = tuple(map(names.name, names.manifests()))
        self._index_file = names.index()
        self._index = index
        self._maker = maker
        self._frontier = frontier
        self._parts = parts

    def status(self) -> Status:
        """Return where the bundle stands now."""
        # In this order: a pass that ends in between is complete, not idle.
        moving = "indexing" if self._frontier.running else "idle"
        error, totals = self._frontier.error, self._index.totals
        return Status(
            phase="failed" if error else "complete" if totals else moving,
            image=str(self._image.path),
            first_part=self._first_part,
            manifests=self._manifests,
            index_file=self._index_file,
            image_size=self._image.size,
            image_bytes_read=self._image.bytes_read,
            tar_size=self._maker.size,
            tar_bytes_done=min(self._index.blocks * BLOCK_SIZE, self._maker.size),
            parts_made=len(self._index.part_digests),
            sealed_bytes=self._index.position,
            blocks_compressed=self._maker.made,
            blocks_made_again=self._maker.made_again,
            page_cache_bytes=self._parts.given,
            seconds=round(time.monotonic() - self._started, 3),
            pass_seconds=round(self._frontier.seconds, 3),
            storage_silent_seconds=round(self._maker.silent_seconds, 1),
            error=str(error) or type(error).__name__ if error else None,
        )
