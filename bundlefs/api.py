"""What programs begin with: the parts of bundlefs put together for one image, or for one bundle.

The command line does the same with more say in it: many images on one engine, and its users told
of what is odd. Nothing here reads options or mounts.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.states import kept_state
from bundlefs.bundling.store import DEFAULT_CACHE_SIZE
from bundlefs.image.source import Source
from bundlefs.keys.rsa import UserKeys
from bundlefs.manifest.write import Metadata
from bundlefs.state.memory import State
from bundlefs.unbundling.opened import open_bundle

__all__ = ["open_bundle", "view_image"]


def view_image(  # noqa: PLR0913  # all but two have defaults, and are named
    path: str | os.PathLike[str],
    metadata: Metadata,
    *,
    prefix: str = "image",
    regions: Sequence[str] = (),
    user_keys: UserKeys | None = None,
    level: int = 6,
    cache_size: int = DEFAULT_CACHE_SIZE,
    state: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    with_index: bool = False,
) -> Bundle:
    """Return the bundle of an image, to be read file by file; a context manager.

    With a file for its state it is the same bundle the next time, and a mount with that state
    shows it as well; the index pass goes on where it was. The bundle is the same only as long as
    the image and all parameters but `with_index` are.

    Args:
        path: a file in any form that the mount takes, or a block device.
        metadata: what goes into the manifests.
        prefix: what the names of the files start with.
        regions: for which there is to be a manifest; the standard key alone by default.
        user_keys: whose private key can decrypt the bundle later.
        level: 0 (stored), 1 (fastest) to 9 (smallest).
        cache_size: bytes of memory for sealed blocks, 0 or more.
        state: path of a file that keeps the bundle's key and index; by default nothing is kept.
        fresh: begin a new bundle with a new key, whatever the state has.
        with_index: add an index, with which any host reads the bundle at random.

    Raises:
        ImageError: the image cannot be opened.
        StateError: the state cannot be used: it is damaged, or somebody else uses it.
        UsageError: a parameter cannot be.
    """
    return Bundle.from_image(
        path,
        metadata,
        prefix=prefix,
        regions=regions,
        user_keys=user_keys,
        level=level,
        cache_size=cache_size,
        state=None if state is None else partial(_signed_state, Path(state), fresh),
        with_index=with_index,
    )


def _signed_state(
    path: Path,
    fresh: bool,  # noqa: FBT001  # of a partial
    image: Source,
    recipe: Recipe,
    held: ExitStack,
) -> State:
    state = held.enter_context(closing(kept_state(path, image, recipe, fresh=fresh)))
    state.sign(f"process {os.getpid()}")
    return state
