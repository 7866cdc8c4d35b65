"""What the views can do: a capability is had by its methods, and a misspelt one would be lost."""

from dataclasses import asdict
from typing import cast

from bundlefs.base.progress import Wait
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.names import Entry
from bundlefs.cli.commands.status import describe
from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.single import SingleImage
from bundlefs.fuse.views import Fleeting, Folders, Images, OnDemand, View, Watched, WithDigests
from bundlefs.unbundling.opened import OpenedBundle
from bundlefs.unbundling.view import DiskView

CAPABILITIES = (OnDemand, Watched, WithDigests, Fleeting)


def a_bundle(
    bundle: Bundle,
) -> tuple[View[Entry], OnDemand[Entry], Watched, WithDigests[Entry], Fleeting[Entry]]:
    """Have mypy compare the signatures."""
    return bundle, bundle, bundle, bundle, bundle


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


class Waiting:
    """An opened bundle of which a read waits, or none does."""

    name, size, sealed_size, access = "image.img", 4096, 1000, "by access points"

    def __init__(self, wait: Wait | None) -> None:
        self.wait = wait


def test_a_disk_whose_read_waits_for_a_pass() -> None:
    wait = Wait("image.img", "first pass", 1000)
    wait.reached(250)
    status = DiskView(cast("OpenedBundle", Waiting(wait)), 0).status()
    assert (status.phase, status.pass_bytes_done, status.pass_bytes_total) == (
        "indexing",
        250,
        1000,
    )
    at_rest = DiskView(cast("OpenedBundle", Waiting(None)), 0).status()
    assert (at_rest.phase, at_rest.pass_bytes_done, at_rest.pass_bytes_total) == ("complete", 0, 0)
    shown = describe({**asdict(status), "pid": 4711}).splitlines()
    assert "phase     indexing: a read waits for the first pass over the bundle" in shown
    assert shown[-1].startswith(" 25%|")
