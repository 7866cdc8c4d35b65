"""A `Plan`: secret, index and maker of one bundle, which the frontier and its readers share."""

from collections.abc import Callable
from dataclasses import dataclass

from bundlefs.bundling.maker import Maker
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import Index


@dataclass(frozen=True, slots=True)
class Plan:
    """How a bundle is made, and the index of what has been.

    Args:
        secret: seals it.
        index: grows as it is made.
        maker: makes its blocks.
        promised_size: of the sealed stream, if that has been told before it was made.
        name: for the log.
        confirm: raises if the image is not what it was; called before the end is told.
    """

    secret: Secret
    index: Index
    maker: Maker
    promised_size: int | None = None
    name: str = "the bundle"
    confirm: Callable[[], None] = lambda: None
