"""The manifests of a bundle: each is rendered once, and has a size before its digests are known.

A rendering has other wrapped keys each time, so the first one is the only one: the state keeps it
before anyone sees it, and a later mount shows the same bytes. The size does not depend on any
digest or key, so it is that of a rendering with placeholders.

Concurrency: sizes may be asked for from any thread. `text` is for one thread at a time: it
writes the state.
"""

from collections.abc import Callable, Sequence

from bundlefs.base.errors import BundlefsError, InconsistentError
from bundlefs.base.threads import asking_storage
from bundlefs.bundling.names import ManifestFile, Names, Part
from bundlefs.manifest.sealed import render_sealed, rendered_size
from bundlefs.manifest.write import PLACEHOLDER_DIGEST, Contents
from bundlefs.state.index import Totals, part_count
from bundlefs.state.memory import State


class Manifests:
    """The manifests of one bundle, of an image of `image_size` bytes."""

    def __init__(self, names: Names, image_size: int, state: State) -> None:
        self._names = names
        self._image_size = image_size
        self._state = state
        self._sizes: dict[int, int] = {}

    def size(self, entry: ManifestFile, sealed_size: int) -> int:
        """Return the size of a manifest in bytes, with the true size of the sealed stream."""
        if entry.number not in self._sizes:
            kept = self._state.manifests.get(self._names.name(entry))
            size = self._expected(entry, sealed_size) if kept is None else len(kept.encode())
            self._sizes[entry.number] = size
        return self._sizes[entry.number]

    def _expected(self, entry: ManifestFile, sealed_size: int) -> int:
        """Return what the size is going to be; the event loop asks, so no key is used."""
        recipe, digests = self._names.recipe, [PLACEHOLDER_DIGEST] * part_count(sealed_size)
        contents = self._contents(Totals(0, PLACEHOLDER_DIGEST, sealed_size), digests)
        to = recipe.recipients[entry.number]
        return rendered_size(recipe.metadata, contents, to, recipe.user_keys)

    def text(self, entry: ManifestFile) -> bytes:
        """Return a manifest; render it, and have it kept, if nobody has seen it yet.

        Raises:
            BundlefsError: the digests are not known yet.
        """
        totals = self._state.index.totals
        if totals is None:
            raise BundlefsError("the digests are not known yet")
        kept, name = self._state.manifests, self._names.name(entry)
        if name not in kept:
            text = self._render(entry, totals, self._state.index.part_digests)
            if len(text) != self.size(entry, totals.sealed_size):
                raise InconsistentError(f"{name} has another size than was shown")
            kept[name] = text.decode()
            with asking_storage():
                self._state.save()
        return kept[name].encode()

    def _render(self, entry: ManifestFile, totals: Totals, digests: Sequence[str]) -> bytes:
        recipe, contents = self._names.recipe, self._contents(totals, digests)
        to = recipe.recipients[entry.number]
        return render_sealed(recipe.metadata, contents, to, recipe.user_keys, self._state.secret)

    def _contents(self, totals: Totals, digests: Sequence[str]) -> Contents:
        return bundle_contents(
            self._names.recipe.prefix,
            self._image_size,
            totals,
            lambda number: self._names.name(Part(number)),
            digests,
        )


def bundle_contents(
    prefix: str,
    image_size: int,
    totals: Totals,
    part_name: Callable[[int], str],
    part_digests: Sequence[str],
) -> Contents:
    """Return what a manifest says of a bundle with these totals and digests."""
    names = (part_name(number) for number in range(part_count(totals.sealed_size)))
    return Contents(
        name=prefix,
        size=image_size,
        bundled_size=totals.sealed_size,
        digest=totals.digest,
        parts=tuple(zip(names, part_digests, strict=True)),
    )
