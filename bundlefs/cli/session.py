"""A mount of an image, or of a folder of images, from beginning to end.

Nothing here is needed before a mount is made: this loads the event loop. What a mount of one raw
image in the background does without is not loaded for it: it is to be ready soon.
"""

import logging
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bundlefs.base.errors import ImageChangedError
from bundlefs.base.workers import Workers
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.store import BlockStore, Spill
from bundlefs.cli.architecture import Telling, for_image
from bundlefs.cli.beginning import begin
from bundlefs.cli.opening import open_image, open_state, warn_of_doubts, warn_of_size
from bundlefs.cli.options.bundling import CacheOptions
from bundlefs.cli.options.mounting import ImageMount
from bundlefs.cli.streams import print_warning
from bundlefs.cli.waits import IndexProgress
from bundlefs.fuse.session import Session, serve
from bundlefs.fuse.single import SingleImage
from bundlefs.image.identity import Identity
from bundlefs.image.open import load_readers
from bundlefs.image.source import Source
from bundlefs.state.memory import State

log = logging.getLogger(__name__)


def run_session(options: ImageMount, recipe: Recipe, ready: Callable[[], None]) -> int:
    """Mount, call `ready` when the mount answers, and return the exit code when it has ended."""
    session = begin(options.mount, options.image)
    session = replace(session, page_cache=not options.cache.no_page_cache)
    serve_it = _serve_folder if options.image.is_dir() else _serve_image
    with Assembly(_engine(options.cache, options.bundle.work.jobs)) as assembly:
        serve_it(_Maker(options, recipe, assembly, session), session, ready)
    return 0


def _engine(options: CacheOptions, jobs: int) -> Engine:
    spill = Spill(options.cache_dir) if options.cache_dir else None
    store = BlockStore(options.cache_size, spill)
    return Engine(Workers(jobs), store)


class _Maker:
    """Makes the bundles of a mount as its options say."""

    def __init__(
        self, options: ImageMount, recipe: Recipe, assembly: Assembly, session: Session
    ) -> None:
        self.options = options
        self._recipe = recipe
        self._assembly = assembly
        self._holder = f"process {os.getpid()}, mounted on {session.mountpoint}"
        self._earlier: dict[int, _Earlier] = {}

    def bundle(self, path: Path, number: int, warn: Callable[[str], None]) -> Bundle:
        """Return the bundle of an image; to open it can take minutes.

        A number that was open before is the same bundle again.
        """
        bundle_options = self.options.bundle
        made: list[_Earlier] = []

        def prepare(image: Source, held: ExitStack) -> tuple[Recipe, State]:
            before = self._unchanged(image, number)
            recipe = before.recipe if before else self._first(image, warn)
            state = before.state if before else None
            if state is None:
                fresh = bundle_options.state.fresh and before is None
                state = open_state(bundle_options.state, image, recipe, fresh=fresh)
            held.enter_context(closing(state))
            state.sign(self._holder)
            lost = state if bundle_options.state.nowhere else None
            made.append(_Earlier(image.identity, recipe, lost))
            return recipe, state

        opens = partial(open_image, bundle_options.image, bundle_options.state, path)
        bundle = self._assembly.bundle(Bundle, opens, prepare, number)
        [self._earlier[number]] = made
        return bundle

    def close(self, number: int, for_good: bool) -> None:  # noqa: FBT001  # a `Closer`
        """Close the image of a number and what it needs; its bundle is closed before."""
        self._assembly.let_go(number, for_good=for_good)

    def _first(self, image: Source, warn: Callable[[str], None]) -> Recipe:
        """Return what is made of an image that is opened for the first time."""
        options = self.options.bundle
        warn_of_size(image, options.image, warn)
        warn_of_doubts(image, options.image, warn, kernel=options.kernel)
        return for_image(options.arch, image, self._recipe, Telling(warn))

    def _unchanged(self, image: Source, number: int) -> "_Earlier | None":
        """Return what the number stood for when it was open before, if it was.

        Raises:
            ImageChangedError: it was another image, or had other bytes.
        """
        before = self._earlier.get(number)
        if before and (changes := before.identity.changes(image.identity)):
            raise ImageChangedError(
                f"image {image.path} was changed while in use: {', '.join(changes)}; unmount, and"
                " mount it again to bundle it as it is now"
            )
        return before


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What must be the same when an image is opened again; the state if no file has it."""

    identity: Identity
    recipe: Recipe
    state: State | None


def _serve_image(maker: _Maker, session: Session, ready: Callable[[], None]) -> None:
    options = maker.options
    with closing(maker.bundle(options.image, 0, print_warning)) as bundle:
        if options.cache.eager:
            bundle.when_complete()
        serve(SingleImage(bundle), session, ready, _tick(options, bundle))


def _tick(options: ImageMount, bundle: Bundle) -> Callable[[], None] | None:
    """Return what shows progress, where anybody sees it."""
    if not options.mount.foreground or options.mount.log.quiet:
        return None
    return partial(IndexProgress(), bundle)


def _serve_folder(maker: _Maker, session: Session, ready: Callable[[], None]) -> None:
    from bundlefs.fuse.shelf import Shelf  # noqa: PLC0415  # not for one image

    load_readers()
    _raise_limit_of_files()
    opener = partial(maker.bundle, warn=log.warning)
    with closing(Shelf(maker.options.image.absolute(), opener, maker.close)) as shelf:
        serve(shelf, session, ready)


def _raise_limit_of_files() -> None:
    """Allow as many open files as we may: each image takes two or more while it is open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
