"""A mount of the disk in a bundle, from beginning to end. This loads the event loop."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bundlefs.base.threads import closed_in_time
from bundlefs.cli.beginning import begin
from bundlefs.cli.given import part_files
from bundlefs.cli.options.mounting import DiskMount
from bundlefs.fuse.session import serve
from bundlefs.fuse.single import SingleImage
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling.opened import OpenedBundle
from bundlefs.unbundling.partitions import partitions
from bundlefs.unbundling.view import DiskView


def open_session(
    options: DiskMount, manifest: BundleManifest, secret: Secret, ready: Callable[[], None]
) -> int:
    """Mount a bundle as a disk, call `ready` when it answers, and return when it has ended."""
    session = begin(options.mount, options.given.manifest)
    parts = part_files(manifest, options.given, check=not options.no_verify)
    bundle = OpenedBundle(manifest, parts, secret, options.given.manifest.absolute().parent)
    view = DiskView(bundle, _written_ns(options.given.manifest), partitions(bundle))
    try:
        serve(SingleImage(view), session, ready)
    finally:
        view.close()
        closed_in_time(bundle.close, patient=view.ended())
    return 0


def _written_ns(manifest: Path) -> int:
    """Return the manifest's time, which the disk shows; it has been read and may be gone now."""
    with suppress(OSError):
        return manifest.stat().st_mtime_ns
    return time.time_ns()
