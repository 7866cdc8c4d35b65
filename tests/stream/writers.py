"""Writers of bundles with the identity of the other tests, and whole bundles by them."""

from bundlefs import BundleWriter, MemorySink, Metadata
from bundlefs.bundling.sinks import Sink
from tests.stream.badsinks import identity
from tests.stream.engine import user_keys
from tests.support.tools import ACCOUNT

METADATA = Metadata(ACCOUNT)
PROMPT = 10
"""Seconds within which an error must have reached the caller; it takes milliseconds."""


def writer(size: int, sink: Sink, level: int = 1, jobs: int | None = 2) -> BundleWriter:
    """Make a writer with the identity of the other tests."""
    keys = user_keys()
    return BundleWriter(
        "image", size, sink, level=level, jobs=jobs, user_keys=keys, state=identity()
    )


def bundled(image: bytes, cuts: list[int], level: int = 1, jobs: int = 2) -> MemorySink:
    """Write `image` in pieces that end at `cuts`."""
    sink = MemorySink()
    with writer(len(image), sink, level, jobs) as bundle:
        for start, stop in zip([0, *cuts], [*cuts, len(image)], strict=True):
            bundle.write(image[start:stop])
    return sink
