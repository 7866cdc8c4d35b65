"""The state of a bundle, taken up from a file or begun, by what the bundle depends on."""

from pathlib import Path

from bundlefs.bundling.recipe import Recipe, wanted
from bundlefs.image.source import Source
from bundlefs.state.memory import State
from bundlefs.state.open import open_file


def kept_state(path: Path | None, image: Source, recipe: Recipe, *, fresh: bool) -> State:
    """Take up the state in a file if it is of this very bundle, or begin one; None keeps nothing.

    Raises:
        StateError: it cannot be used.
    """
    asked = wanted(image, recipe)
    return State(asked.extents) if path is None else open_file(path.absolute(), asked, fresh=fresh)
