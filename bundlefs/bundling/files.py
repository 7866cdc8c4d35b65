"""What is known of a bundle's files at this moment: names, sizes and digests.

Nothing here waits and nothing here starts work: an answer that is not there yet is None, or an
error where nobody should have asked yet. Who asks for it to be there is `view`.

Concurrency: any thread. The index grows meanwhile, and what is known never changes.
"""

from dataclasses import dataclass

from bundlefs.base.errors import BundlefsError, UnknownNameError
from bundlefs.base.spans import Span, ceil_div
from bundlefs.bundling.maker import stored_stream_size
from bundlefs.bundling.manifests import Manifests
from bundlefs.bundling.names import Entry, IndexFile, ManifestFile, Names, Part
from bundlefs.bundling.recipe import Recipe
from bundlefs.codec.deflate import BLOCK_SIZE
from bundlefs.image.source import Source
from bundlefs.state.index import PART_SIZE, number_width, part_count
from bundlefs.state.memory import State
from bundlefs.state.sealed_index import index_size


@dataclass(frozen=True, slots=True)
class Sealed:
    """How far a bundle has been made: blocks, digests of its whole parts, bytes, if that is all."""

    blocks: int
    digests: tuple[str, ...]
    position: int
    complete: bool


class Files:
    """The files of one bundle, as far as they are known.

    Attributes:
        created_ns: the time that they show. After going back to an earlier bundle that is
            later than the bundle's own.
    """

    def __init__(self, image: Source, recipe: Recipe, state: State, tar_size: int) -> None:
        self.created_ns = state.shown_ns
        self._image = image
        self._index = state.index
        self._bound = stored_stream_size(tar_size)
        # Stored blocks have no other size than this, so that level 0 knows all at once.
        self._promised = self._bound if recipe.level == 0 else None
        self._names = Names(recipe, number_width(self._bound))
        self._manifests = Manifests(self._names, image.size, state)
        self._index_size = index_size(ceil_div(tar_size, BLOCK_SIZE))

    # Names

    def name(self, entry: Entry) -> str:
        """Return the file name of an entry."""
        return self._names.name(entry)

    def key(self, entry: Entry) -> int:
        """Return the number of an entry."""
        return self._names.key(entry)

    def entry(self, key: int) -> Entry:
        """Return the entry of a number."""
        return self._names.entry(key)

    def find(self, name: str) -> Entry:
        """Return the entry of a name that exists or may turn out to exist.

        Raises:
            UnknownNameError: no file has this name or ever will.
        """
        entry = self._names.parse(name)
        if entry is None or self._beyond(entry):
            raise UnknownNameError(f"no file {name!r} in this bundle")
        return entry

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, the parts last, as they sort; the size of the whole must be known.

        Raises:
            BundlefsError: it is not.
        """
        size = self._sealed_size
        if size is None:
            raise BundlefsError("the list of parts is not known yet")
        return (*self._names.others(), *(Part(number) for number in range(part_count(size))))

    # Sizes

    @property
    def _sealed_size(self) -> int | None:
        totals = self._index.totals
        return totals.sealed_size if totals else self._promised

    def _beyond(self, entry: Entry) -> bool:
        size = self._sealed_size
        end = self._bound if size is None else size
        return isinstance(entry, Part) and entry.span.start >= end

    def known_size(self, entry: Entry) -> int | None:
        """Return the size of an entry in bytes, or None if it is not known yet.

        Raises:
            UnknownNameError: it has turned out not to exist.
        """
        size = self._sealed_size
        if isinstance(entry, IndexFile):
            return self._index_size
        if isinstance(entry, ManifestFile):
            return None if size is None else self._manifests.size(entry, size)
        if self._beyond(entry):
            raise UnknownNameError(f"the bundle ends before {self.name(entry)}")
        if size is None and self._index.position < entry.span.stop:
            return None
        return PART_SIZE if size is None else min(PART_SIZE, size - entry.span.start)

    def _part_span(self, part: Part, offset: int, length: int) -> Span:
        """Return where in the sealed stream these bytes of a part are, as far as it has them."""
        size = self.known_size(part)
        end = part.span.start + (PART_SIZE if size is None else size)
        start = min(part.span.start + offset, end)
        return Span(start, min(start + length, end))

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of all parts as far as they are made; bytes."""
        return self._image.size, self._index.position

    # Digests

    def has_digest(self, entry: Entry) -> bool:
        """Tell whether it is a part: manifests have no digest of their own."""
        return isinstance(entry, Part)

    def digest(self, entry: Entry) -> str:
        """Return the SHA-1 of a part, in hex; the part must be complete.

        Raises:
            UnknownNameError: it is no part, or has turned out not to exist.
        """
        if not isinstance(entry, Part):
            raise UnknownNameError("only parts have a digest of their own")
        if entry.number >= len(self._index.part_digests):
            raise UnknownNameError(f"the bundle ends before {self.name(entry)}")
        return self._index.part_digests[entry.number]

    def sealed_before(self) -> Sealed:
        """Tell what an earlier run has sealed; to be asked before anything else."""
        index = self._index
        blocks = index.blocks
        digests, position = tuple(index.part_digests), index.position
        return Sealed(blocks, digests, position, index.totals is not None)
