"""The files of a bundle by number: which names and keys they have. It knows no bytes.

Manifests come first, then the index if it is wanted, then parts. The names of parts have as many
digits as the largest number that the bundle may need.
"""

from dataclasses import dataclass

from bundlefs.base.spans import Span
from bundlefs.bundling.recipe import Recipe
from bundlefs.state.index import PART_SIZE, part_name
from bundlefs.state.sealed_index import index_name


@dataclass(frozen=True, slots=True)
class Part:
    """A part by its number, from 0. It may turn out not to exist."""

    number: int

    @property
    def span(self) -> Span:
        """The bytes of the sealed stream that are this part's, if it is a full one."""
        return Span(self.number * PART_SIZE, (self.number + 1) * PART_SIZE)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest by its place among the recipients."""

    number: int


@dataclass(frozen=True, slots=True)
class IndexFile:
    """The index that travels with the bundle; there is at most one."""


Entry = Part | ManifestFile | IndexFile


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a recipe's files; `width` is that of the parts' numbers, in digits."""

    recipe: Recipe
    width: int

    def name(self, entry: Entry) -> str:
        """Return the file name of an entry."""
        if isinstance(entry, ManifestFile):
            return self.recipe.recipients[entry.number].filename
        if isinstance(entry, IndexFile):
            return index_name(self.recipe.prefix)
        return part_name(self.recipe.prefix, entry.number, self.width)

    def parse(self, name: str) -> Entry | None:
        """Return the entry of a name; None if no entry has this name."""
        for other in self.others():
            if name == self.name(other):
                return other
        head, dot, digits = name.rpartition(".part.")
        if dot and head == self.recipe.prefix and digits.isascii() and digits.isdigit():
            part = Part(int(digits))
            return part if self.name(part) == name else None
        return None

    def manifests(self) -> tuple[ManifestFile, ...]:
        """Return all manifests."""
        return tuple(ManifestFile(number) for number in range(len(self.recipe.recipients)))

    def index(self) -> str | None:
        """Return the file name of the index, if it is wanted."""
        return self.name(IndexFile()) if self.recipe.with_index else None

    def others(self) -> tuple[ManifestFile | IndexFile, ...]:
        """Return all that are no parts: the manifests, and the index if it is wanted."""
        manifests = self.manifests()
        return (*manifests, IndexFile()) if self.recipe.with_index else manifests

    def key(self, entry: Entry) -> int:
        """Return the number of an entry: that of a part comes after those of all others."""
        others = self.others()
        return len(others) + entry.number if isinstance(entry, Part) else others.index(entry)

    def entry(self, key: int) -> Entry:
        """Return the entry of a number."""
        others = self.others()
        return others[key] if key < len(others) else Part(key - len(others))
