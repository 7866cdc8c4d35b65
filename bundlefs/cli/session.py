"""One mount from beginning to end: image, state, store, workers, bundle, FUSE session."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

from bundlefs.bundle import Bundle, Engine
from bundlefs.cli.bundles import parts_folder
from bundlefs.cli.common import human
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.progress import progress
from bundlefs.image import Source
from bundlefs.keys import Secret
from bundlefs.manifest_reader import BundleManifest
from bundlefs.mount import Session, serve
from bundlefs.mountpoint import check_mountpoint
from bundlefs.opened import DiskView, OpenedBundle
from bundlefs.parts import PartFiles
from bundlefs.recipe import Recipe, wanted
from bundlefs.sources import open_source
from bundlefs.state import State, default_path, open_file
from bundlefs.store import BlockStore, Spill
from bundlefs.workers import Workers

MAX_ROOT_SIZE = 10 << 30
"""EC2 refuses a root image larger than 10 GiB [ec2-ami-tools bundleimage.rb MAX_SIZE]."""


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


def open_image(arguments: argparse.Namespace, path: Path) -> Source:
    """Open an image in the form that it has, or that --source says."""
    kept = _points_path(arguments, path) if path == arguments.image else None
    return open_source(path, raw=arguments.source == "raw", kept=kept)


def _points_path(arguments: argparse.Namespace, path: Path) -> Path | None:
    """Name the file for what is known of a compressed image, beside its state."""
    if arguments.state == "none":
        return None
    if arguments.state:
        return Path(f"{arguments.state}.points").absolute()
    # What is wrong with the path is found, and said, on opening it.
    with suppress(OSError, RuntimeError):
        return default_path(path, "").with_suffix(".points")
    return None


def warn_of_size(image: Source, arguments: argparse.Namespace) -> None:
    """Say so if EC2 is going to refuse this image."""
    if image.size > MAX_ROOT_SIZE and not arguments.no_size_limit:
        print(
            f"bundlefs: warning: {image.path} has {human(image.size)}; EC2 takes root images of at"
            " most 10 GiB (--no-size-limit silences this)",
            file=sys.stderr,
        )


def _session(arguments: argparse.Namespace, source: Path) -> Session:
    options = {option for text in arguments.o for option in text.split(",") if option}
    if arguments.allow_other:
        options.add("allow_other")
    return Session(
        mountpoint=check_mountpoint(arguments.mountpoint),
        source=str(source.absolute()),
        options=frozenset(options),
        umask=_umask(),
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def open_state(arguments: argparse.Namespace, image: Source, recipe: Recipe) -> State:
    """Take up the state of an earlier mount, or begin one, in a file or not."""
    asked = wanted(image, recipe)
    if arguments.state == "none":
        return State(asked.extents)
    path = Path(arguments.state) if arguments.state else default_path(image.path, recipe.prefix)
    return open_file(path.absolute(), asked, fresh=arguments.fresh)
