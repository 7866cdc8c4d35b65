"""`bundlefs bundle`: a bundle as files in a folder, without FUSE."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bundlefs.base.errors import BundlefsError, UsageError
from bundlefs.base.files import open_unnamed
from bundlefs.base.heap import bound_heaps
from bundlefs.base.progress import Wait
from bundlefs.base.workers import Workers
from bundlefs.bundling import frontier
from bundlefs.bundling.assembly import Assembly, Engine
from bundlefs.bundling.bundle import Bundle
from bundlefs.bundling.earlier import remove_manifests
from bundlefs.bundling.export import Export, Tap
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.sinks import DirectorySink
from bundlefs.bundling.writer import BundleWriter
from bundlefs.cli.architecture import Telling, for_image, for_pipe
from bundlefs.cli.commands.mount import read_recipe
from bundlefs.cli.common import Subparsers, size
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.misuse import refuse_folder_first
from bundlefs.cli.opening import (
    open_image,
    open_state,
    require_raw_pipe,
    warn_if_large,
    warn_of_doubts,
    warn_of_size,
)
from bundlefs.cli.options import typed
from bundlefs.cli.options.bundling import (
    BundleOptions,
    StateOptions,
    add_bundle_options,
    add_state_options,
    add_work_options,
)
from bundlefs.cli.options.logs import LogOptions, add_log_options
from bundlefs.cli.prefixes import warn_of_prefix
from bundlefs.cli.streams import print_warning, say
from bundlefs.cli.waits import bundle_watched
from bundlefs.image.source import Source
from bundlefs.image.spool import spool_folder
from bundlefs.state.memory import State

log = logging.getLogger(__name__)

_PIPE = Path("-")
_PIECE = 1 << 20
_NOT_AGAIN = "an image on standard input cannot be gone on with, so nothing is kept of it"
_AS_IT_COMES = "of an image on standard input with --size each byte is bundled as it comes"
_WHY = {
    "--state": _NOT_AGAIN,
    "--fresh": _NOT_AGAIN,
    "--source": _AS_IT_COMES,
    "--no-sparse": _AS_IT_COMES,
}


@dataclass(frozen=True, slots=True)
class _Options:
    image: Path
    dest: Path
    size: int | None
    bundle: BundleOptions
    log: LogOptions

    def without_state(self) -> "_Options":
        """Return the same with no state: nobody can go on with an image that is gone."""
        nowhere = StateOptions("none", fresh=False)
        return replace(self, bundle=replace(self.bundle, state=nowhere))


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bundle",
        help="write a bundle to a folder, without a mount",
        description="Write the bundle of IMAGE into the folder DEST in one pass, the manifests"
        " last. A run that was interrupted goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE|-", help="'-' is standard input")
    parser.add_argument("dest", type=Path, metavar="DEST")
    parser.add_argument("--size", type=size, help="size of the image that comes on standard input")
    add_bundle_options(parser)
    add_work_options(parser)
    add_state_options(parser)
    add_log_options(parser.add_argument)
    parser.set_defaults(run=run, foreground=True)


def run(arguments: argparse.Namespace) -> int:
    """Write the bundle."""
    options = typed(_Options, arguments)
    refuse_folder_first("bundle", "image", options.image, options.dest)
    _refuse_needless(options)
    recipe = read_recipe(arguments)
    bound_heaps()
    warn_of_prefix(recipe.prefix)
    _set_up_logging(options.log)
    try:
        options.dest.mkdir(parents=True, exist_ok=True)
        _write(options, recipe)
    except OSError as error:
        # Those of the sink have a name; to read goes by descriptor.
        where = f"write the bundle to {error.filename}" if error.filename else "read the image"
        raise BundlefsError(f"cannot {where}: {error.strerror}") from error
    return 0


def _write(options: _Options, recipe: Recipe) -> None:
    if options.image != _PIPE:
        _from_file(options, recipe)
    elif options.size is not None:
        _from_pipe(options, options.size, recipe, sys.stdin.buffer)
    else:
        with _spooled(sys.stdin.buffer) as descriptor:
            _from_file(options.without_state(), recipe, descriptor)


def _refuse_needless(options: _Options) -> None:
    """Refuse by name what can have no effect with this image.

    Raises:
        UsageError: there is such an option.
    """
    state, sized, source = (
        options.bundle.state,
        options.size is not None,
        options.bundle.image.source,
    )
    if options.image != _PIPE:
        if sized:
            raise UsageError(
                "--size is for an image on standard input; a file has a size of its own"
            )
        return
    needless = {
        f"--state {state.state}": state.state is not None and not state.nowhere,
        "--fresh": state.fresh,
        f"--source {source}": sized and source not in (None, "raw"),
        "--no-sparse": sized and options.bundle.no_sparse,
    }
    for option, given in needless.items():
        if given:
            raise UsageError(f"{option}: {_WHY[option.split()[0]]}; leave it out")


def _set_up_logging(options: LogOptions) -> None:
    set_up_logging(options)
    if not options.log_file:
        # What stops the bundle ends the command, which says so by itself.
        frontier.log.addFilter(lambda record: record.levelno < logging.ERROR)


@contextmanager
def for_upload(arguments: argparse.Namespace) -> Iterator[tuple[Bundle, Tap, list[str]]]:
    """Yield a bundle for whoever exports it, with its tap and the names of its manifests."""
    options = typed(_Options, arguments)
    recipe = read_recipe(arguments)
    bound_heaps()
    warn_of_prefix(recipe.prefix)
    _set_up_logging(options.log)
    with _made(options, recipe) as (bundle, tap):
        yield bundle, tap, [to.filename for to in recipe.recipients]


def _from_file(options: _Options, recipe: Recipe, descriptor: int | None = None) -> None:
    with (
        _made(options, recipe, descriptor) as (bundle, tap),
        bundle_watched(bundle, quiet=options.log.quiet),
    ):
        _remove_manifests(options.dest, recipe, bundle.sealed_before().digests)
        Export(bundle, tap, DirectorySink(options.dest), options.dest).run()


@contextmanager
def _made(
    options: _Options, recipe: Recipe, descriptor: int | None = None
) -> Iterator[tuple[Bundle, Tap]]:
    """Yield the bundle of the image, and where its blocks come by; nothing is made yet."""
    path = options.image if descriptor is None else Path("standard input")
    making, notes = options.bundle, list[str]()
    telling = Telling(print_warning, notes.append, piped=descriptor is not None)

    def prepare(image: Source, held: ExitStack) -> tuple[Recipe, State]:
        warn_of_size(image, making.image)
        warn_of_doubts(image, making.image, kernel=making.kernel)
        own = for_image(making.arch, image, recipe, telling)
        state = held.enter_context(closing(open_state(making.state, image, own)))
        state.sign(f"process {os.getpid()}, bundling to {options.dest}")
        return own, state

    workers = Workers(making.work.jobs)
    tap = Tap(workers.lane())
    opens = partial(open_image, making.image, making.state, path, descriptor=descriptor)
    with (
        Assembly(Engine(workers, tap)) as assembly,
        closing(assembly.bundle(Bundle, opens, prepare)) as bundle,
    ):
        yield bundle, tap
    _tell(notes)


def _from_pipe(options: _Options, size: int, recipe: Recipe, pipe: BinaryIO) -> None:
    making, notes = options.bundle, list[str]()
    metadata = for_pipe(making.arch, recipe.metadata, notes.append)
    warn_if_large(size, "standard input", making.image)
    with (
        BundleWriter(
            recipe.prefix,
            size,
            DirectorySink(options.dest),
            level=recipe.level,
            jobs=making.work.jobs,
            user_keys=recipe.user_keys,
        ) as writer,
        Wait("standard input", "bundling", size) as wait,
    ):
        data = pipe.read(_PIECE)
        done = 0
        require_raw_pipe(making.image, data)
        _remove_manifests(options.dest, recipe, ())
        while data:
            writer.write(data)
            done += len(data)
            wait.reached(done)
            data = pipe.read(_PIECE)
    if recipe.with_index:
        writer.write_index()
    for to in recipe.recipients:
        writer.write_manifest_for(metadata, to)
    _tell(notes)


def _tell(notes: list[str]) -> None:
    """Log what holds of a bundle that is made; of one that is not, its error is all there is."""
    for text in notes:
        log.info(text)


def _remove_manifests(folder: Path, recipe: Recipe, digests: Sequence[str]) -> None:
    names = [to.filename for to in recipe.recipients]
    remove_manifests(folder, recipe.prefix, names, digests)


def _copy(pipe: BinaryIO, file: BinaryIO) -> None:
    done = 0
    with Wait("standard input", "keeping it", None) as wait:
        while data := pipe.read(_PIECE):
            file.write(data)
            done += len(data)
            wait.reached(done)


@contextmanager
def _spooled(pipe: BinaryIO) -> Iterator[int]:
    """Keep what comes through a pipe in a file, since the tar header needs its size first.

    The file has no name: a plain image must not stay behind, however this ends.
    """
    folder = spool_folder()
    with ExitStack() as stack:
        try:
            file = stack.enter_context(os.fdopen(open_unnamed(folder), "r+b"))
            say(f"warning: no --size, so the image is kept in a nameless file in {folder} first")
            _copy(pipe, file)
            file.flush()
        except OSError as error:
            raise BundlefsError(
                f"cannot keep the image in {folder}: {error.strerror}; give its size"
                " with --size, or set TMPDIR to a folder with room"
            ) from error
        yield file.fileno()
