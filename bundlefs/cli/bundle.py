"""`bundlefs bundle`: a bundle as files in a folder, without FUSE."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from bundlefs.bundle import Bundle, Engine
from bundlefs.cli.architecture import for_image, for_pipe
from bundlefs.cli.common import Subparsers, size
from bundlefs.cli.logs import set_up_logging
from bundlefs.cli.mount import add_bundle_options, add_state_options, add_work_options, read_recipe
from bundlefs.cli.mountopts import add_log_options
from bundlefs.cli.opening import (
    open_image,
    open_state,
    print_warning,
    require_raw_pipe,
    warn_of_size,
)
from bundlefs.cli.progress import shown
from bundlefs.cli.streams import say
from bundlefs.errors import BundlefsError, UsageError
from bundlefs.export import Export, Tap
from bundlefs.recipe import Recipe
from bundlefs.sinks import DirectorySink
from bundlefs.workers import Workers
from bundlefs.writer import BundleWriter

log = logging.getLogger(__name__)

_PIPE = Path("-")
_PIECE = 1 << 20
_BEHIND = 8


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bundle",
        help="write a bundle to a folder, without a mount",
        description="Write the bundle of IMAGE into the folder DEST in one pass, the manifests"
        " last. A run that broke off goes on where it was.",
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
    if arguments.size is not None and arguments.image != _PIPE:
        raise UsageError("--size is for an image on standard input; a file has a size of its own")
    recipe = read_recipe(arguments)
    _set_up_logging(arguments)
    try:
        arguments.dest.mkdir(parents=True, exist_ok=True)
        if arguments.image != _PIPE:
            _from_file(arguments, recipe, arguments.image)
        elif arguments.size is not None:
            _from_pipe(arguments, recipe, sys.stdin.buffer)
        else:
            with _spooled(sys.stdin.buffer) as path:
                # What is kept under a name that never comes again, nobody can go on with.
                arguments.state = arguments.state or "none"
                _from_file(arguments, recipe, path)
    except OSError as error:
        # Those of the sink have a name; to read goes by descriptor.
        where = f"write the bundle to {error.filename}" if error.filename else "read the image"
        raise BundlefsError(f"cannot {where}: {error.strerror}") from error
    return 0


def _set_up_logging(arguments: argparse.Namespace) -> None:
    set_up_logging(arguments)
    if not arguments.log_file:
        # What stops the bundle ends the command, which says so by itself.
        frontier = logging.getLogger("bundlefs.frontier")
        frontier.addFilter(lambda record: record.levelno < logging.ERROR)


def _from_file(arguments: argparse.Namespace, recipe: Recipe, path: Path) -> None:
    with ExitStack() as stack:
        named = path == arguments.image
        image = stack.enter_context(closing(open_image(arguments, path, lasting=named)))
        warn_of_size(image, arguments)
        recipe = for_image(arguments, image, recipe, print_warning)
        state = stack.enter_context(closing(open_state(arguments, image, recipe)))
        state.sign(f"process {os.getpid()}, bundling to {arguments.dest}")
        workers = stack.enter_context(Workers(arguments.jobs))
        tap = Tap(workers.lane(_BEHIND))
        bundle = stack.enter_context(closing(Bundle(image, recipe, Engine(workers, tap), state)))
        stack.enter_context(shown(bundle))
        _remove_manifests(arguments, recipe)
        Export(bundle, tap, DirectorySink(arguments.dest), arguments.dest).run()


def _from_pipe(arguments: argparse.Namespace, recipe: Recipe, pipe: BinaryIO) -> None:
    sink = DirectorySink(arguments.dest)
    metadata = for_pipe(arguments, recipe.metadata, log.info)
    with BundleWriter(
        recipe.prefix,
        arguments.size,
        sink,
        level=recipe.level,
        jobs=arguments.jobs,
        user_keys=recipe.user_keys,
    ) as writer:
        data = pipe.read(_PIECE)
        require_raw_pipe(arguments, data)
        _remove_manifests(arguments, recipe)
        while data:
            writer.write(data)
            data = pipe.read(_PIECE)
    for to in recipe.recipients:
        writer.write_manifest_for(metadata, to)


def _remove_manifests(arguments: argparse.Namespace, recipe: Recipe) -> None:
    """Remove those of an earlier bundle: where there is a manifest, its parts are whole."""
    for to in recipe.recipients:
        (arguments.dest / to.filename).unlink(missing_ok=True)


@contextmanager
def _spooled(pipe: BinaryIO) -> Iterator[Path]:
    """Keep what comes through a pipe in a file, since the tar header needs its size first."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="bundlefs-"))
            say(f"warning: no --size, so the image is kept in {file.name} first")
            shutil.copyfileobj(pipe, file, _PIECE)
            file.flush()
        except OSError as error:
            raise BundlefsError(
                f"cannot keep the image in {tempfile.gettempdir()}: {error.strerror}; give its size"
                " with --size, or set TMPDIR to a folder with room"
            ) from error
        yield Path(file.name)
