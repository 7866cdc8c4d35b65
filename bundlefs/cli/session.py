"""One mount from beginning to end: images, states, store, workers, bundles, FUSE session."""

import argparse
import logging
import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bundlefs.base.errors import ImageChangedError
from bundlefs.base.files import umask
from bundlefs.base.heap import bound_heaps
from bundlefs.base.threads import closed_in_time
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.store import BlockStore, Spill
from bundlefs.cli.architecture import Telling, for_image
from bundlefs.cli.bars import index_progress
from bundlefs.cli.given import part_files
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.mountopts import fuse_options
from bundlefs.cli.opening import open_image, open_state, print_warning, warn_of_doubts, warn_of_size
from bundlefs.fuse.mountpoint import check_mountpoint
from bundlefs.fuse.session import Session, serve
from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.single import SingleImage
from bundlefs.image.identity import Identity
from bundlefs.image.source import Source
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest
from bundlefs.state.memory import State
from bundlefs.unbundling.opened import OpenedBundle
from bundlefs.unbundling.view import DiskView

log = logging.getLogger(__name__)


def run_session(arguments: argparse.Namespace, recipe: Recipe, ready: Callable[[], None]) -> int:
    """Mount, call `ready` when the mount answers, and return the exit code when it has ended."""
    set_up_logging(arguments)
    bound_heaps()
    session = _session(arguments, arguments.image)
    run = _mount_folder if arguments.image.is_dir() else _mount_image
    with ExitStack() as stack:
        run(_Maker(arguments, recipe, session, stack), ready)
    return 0


class _Maker:
    """Makes bundles as the arguments say. `stack` closes all that they need at the end."""

    def __init__(
        self, arguments: argparse.Namespace, recipe: Recipe, session: Session, stack: ExitStack
    ) -> None:
        self.arguments = arguments
        self.session = session
        self.stack = stack
        self._recipe = recipe
        self._earlier: dict[int, _Earlier] = {}
        spill = Spill(arguments.cache_dir) if arguments.cache_dir else None
        store = BlockStore(arguments.cache_size, spill)
        self._assembly = stack.enter_context(Assembly(Engine(Workers(arguments.jobs), store)))

    def bundle(self, path: Path, number: int, warn: Callable[[str], None]) -> Bundle:
        """Give the bundle of an image; opening it can take minutes.

        A number that was open before is the same bundle again.
        """
        opener = partial(open_image, self.arguments, path)
        prepare = partial(self._prepare, number, warn)
        return self._assembly.bundle(Bundle, opener, prepare, number)

    def _prepare(
        self, number: int, warn: Callable[[str], None], image: Source, held: ExitStack
    ) -> tuple[Recipe, State]:
        before = self._before(image, number)
        recipe = before.recipe if before else self._first(image, warn)
        state = before.state if before else None
        if state is None:
            fresh = self.arguments.fresh and before is None
            state = open_state(self.arguments, image, recipe, fresh=fresh)
        held.enter_context(closing(state))
        state.sign(f"process {os.getpid()}, mounted on {self.session.mountpoint}")
        lost = state if self.arguments.state == "none" else None
        self._earlier[number] = _Earlier(image.identity, recipe, lost)
        return recipe, state

    def _first(self, image: Source, warn: Callable[[str], None]) -> Recipe:
        warn_of_size(image, self.arguments, warn)
        warn_of_doubts(image, self.arguments, warn)
        return for_image(self.arguments, image, self._recipe, Telling(warn))

    def _before(self, image: Source, number: int) -> "_Earlier | None":
        """Give what the number stood for when it was open before, if it was."""
        before = self._earlier.get(number)
        if before and (changes := before.identity.changes(image.identity)):
            raise ImageChangedError(
                f"image {image.path} was changed while in use: {', '.join(changes)}; unmount, and"
                " mount it again to bundle it as it is now"
            )
        return before

    def close(self, number: int, for_good: bool) -> None:  # noqa: FBT001  # a `Closer`
        """Close the image of a number and what it needs; its bundle is closed before."""
        self._assembly.let_go(number, for_good=for_good)


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What must be the same when an image is opened again; the state if no file has it."""

    identity: Identity
    recipe: Recipe
    state: State | None


def _mount_image(maker: _Maker, ready: Callable[[], None]) -> None:
    arguments = maker.arguments
    bundle = maker.stack.enter_context(closing(maker.bundle(arguments.image, 0, print_warning)))
    if arguments.eager:
        bundle.when_complete()
    tick = index_progress() if arguments.foreground else None
    serve(SingleImage(bundle), maker.session, ready, tick and partial(tick, bundle))


def _mount_folder(maker: _Maker, ready: Callable[[], None]) -> None:
    _raise_limit_of_files()
    opener = partial(maker.bundle, warn=log.warning)
    folder = maker.arguments.image.absolute()
    shelf = maker.stack.enter_context(closing(Shelf(folder, opener, maker.close)))
    serve(shelf, maker.session, ready)


def _raise_limit_of_files() -> None:
    """Allow as many open files as we may: each image takes two or more while it is open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_session(
    arguments: argparse.Namespace,
    manifest: BundleManifest,
    secret: Secret,
    ready: Callable[[], None],
) -> int:
    """Mount a bundle as a disk, call `ready` when it answers, and return when it has ended."""
    set_up_logging(arguments)
    bound_heaps()
    session = _session(arguments, arguments.manifest)
    parts = part_files(manifest, arguments, check=not arguments.no_verify)
    bundle = OpenedBundle(manifest, parts, secret)
    view = DiskView(bundle, _written_ns(arguments.manifest))
    try:
        serve(SingleImage(view), session, ready)
    finally:
        view.close()
        closed_in_time(bundle.close, patient=view.ended())
    return 0


def _written_ns(manifest: Path) -> int:
    """Give the manifest's time, which the disk shows; it has been read and may be gone now."""
    with suppress(OSError):
        return manifest.stat().st_mtime_ns
    return time.time_ns()


def _session(arguments: argparse.Namespace, source: Path) -> Session:
    flags, name = fuse_options(arguments.o)
    return Session(
        mountpoint=check_mountpoint(arguments.mountpoint),
        source=name or str(source.absolute()),
        options=flags | ({"allow_other"} if arguments.allow_other else set()),
        umask=umask(),
    )
