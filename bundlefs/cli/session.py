"""One mount from beginning to end: image, state, store, workers, bundle, FUSE session."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from bundlefs.bundle import Bundle, Engine
from bundlefs.cli.bundles import parts_folder
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.mountopts import fuse_options
from bundlefs.cli.opening import open_image, open_state, warn_of_size
from bundlefs.cli.progress import progress
from bundlefs.keys import Secret
from bundlefs.manifest_reader import BundleManifest
from bundlefs.mount import Session, serve
from bundlefs.mountpoint import check_mountpoint
from bundlefs.opened import DiskView, OpenedBundle
from bundlefs.parts import PartFiles
from bundlefs.recipe import Recipe
from bundlefs.store import BlockStore, Spill
from bundlefs.workers import Workers


def run_session(arguments: argparse.Namespace, recipe: Recipe, ready: Callable[[], None]) -> int:
    """Mount, call `ready` when the mount answers, and return the exit code when it has ended."""
    set_up_logging(arguments)
    with ExitStack() as stack:
        # First, since to open the image can take minutes.
        session = _session(arguments, arguments.image)
        image = stack.enter_context(closing(open_image(arguments, arguments.image)))
        warn_of_size(image, arguments)
        state = stack.enter_context(closing(open_state(arguments, image, recipe)))
        state.sign(f"process {os.getpid()}, mounted on {session.mountpoint}")
        spill = Spill(arguments.cache_dir) if arguments.cache_dir else None
        store = stack.enter_context(closing(BlockStore(arguments.cache_size, spill)))
        workers = stack.enter_context(Workers(arguments.jobs))
        bundle = stack.enter_context(closing(Bundle(image, recipe, Engine(workers, store), state)))
        if arguments.eager:
            bundle.complete()
        tick = progress() if arguments.foreground else None
        serve(bundle, session, ready, tick and partial(tick, bundle))
    return 0


def open_session(
    arguments: argparse.Namespace,
    manifest: BundleManifest,
    secret: Secret,
    ready: Callable[[], None],
) -> int:
    """Mount a bundle as a disk, call `ready` when it answers, and return when it has ended."""
    set_up_logging(arguments)
    session = _session(arguments, arguments.manifest)
    parts = PartFiles(manifest, parts_folder(arguments), check=not arguments.no_verify)
    with closing(OpenedBundle(manifest, parts, secret)) as bundle:
        view = DiskView(bundle, arguments.manifest.stat().st_mtime_ns)
        serve(view, session, ready)
    return 0


def _session(arguments: argparse.Namespace, source: Path) -> Session:
    flags, name = fuse_options(arguments.o)
    return Session(
        mountpoint=check_mountpoint(arguments.mountpoint),
        source=name or str(source.absolute()),
        options=flags | ({"allow_other"} if arguments.allow_other else set()),
        umask=_umask(),
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
