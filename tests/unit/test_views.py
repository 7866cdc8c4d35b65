"""What the views can do: a capability is had by its methods, and a misspelt one would be lost."""

from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import Entry
from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.single import SingleImage
from bundlefs.fuse.views import Folders, Images, OnDemand, View, Watched, WithDigests
from bundlefs.unbundling.view import DiskView

CAPABILITIES = (OnDemand, Watched, WithDigests)


def a_bundle(bundle: Bundle) -> tuple[View[Entry], OnDemand[Entry], Watched, WithDigests[Entry]]:
    """Have mypy compare the signatures."""
    return bundle, bundle, bundle, bundle


def a_disk(disk: DiskView) -> View[int]:
    """Have mypy compare the signatures."""
    return disk


def all_images(shelf: Shelf, single: SingleImage) -> tuple[Images, Folders, Images]:
    """Have mypy compare the signatures."""
    return shelf, shelf, single


def test_a_bundle_is_made_on_demand_and_watched_and_has_digests() -> None:
    assert all(issubclass(Bundle, capability) for capability in CAPABILITIES)


def test_a_disk_is_there_as_a_whole() -> None:
    assert not any(issubclass(DiskView, capability) for capability in CAPABILITIES)
