"""`bundlefs unbundle`: a bundle back to its image."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bundlefs.base.errors import UsageError
from bundlefs.base.workers import Workers
from bundlefs.cli.common import Subparsers, human
from bundlefs.cli.given import (
    PIPE,
    load_keys,
    part_files,
    read_given,
    signature_in_words,
    unlock_given,
    warn_unless_signed,
)
from bundlefs.cli.new_file import NewFile, explaining_writes
from bundlefs.cli.options import typed
from bundlefs.cli.options.given import (
    GivenBundle,
    add_bundle_arguments,
    add_ignore_signature,
    add_jobs,
)
from bundlefs.cli.options.logs import add_quiet
from bundlefs.cli.streams import tell
from bundlefs.cli.waits import pass_bar
from bundlefs.unbundling.extract import Pass, Passed
from bundlefs.unbundling.outputs import Output, Pipe, SparseFile


@dataclass(frozen=True, slots=True)
class _Options:
    given: GivenBundle
    jobs: int
    ignore_signature: bool
    output: Path | None
    sparse: bool
    force: bool
    quiet: bool


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "unbundle",
        help="write the image in a bundle to a file",
        description="Write the image in a bundle to a sparse file. It gets its name only if"
        " every digest holds.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    add_jobs(parser)
    add_ignore_signature(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="IMAGE", help="'-' is standard output")
    add("--sparse", action="store_true", help="also leave holes where there are runs of zeros")
    add("--force", action="store_true", help="overwrite IMAGE")
    add_quiet(add)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Unbundle."""
    options = typed(_Options, arguments)
    if options.output == PIPE:
        _refuse_needless(options)
    path = options.given.manifest
    keys = load_keys(options.given.keys)
    manifest = read_given(path)
    secret = unlock_given(manifest, keys, path, ignore=options.ignore_signature)
    parts = part_files(manifest, options.given)

    bar = partial(pass_bar, path, "unbundling", quiet=options.quiet)

    def into(output: Output) -> Passed:
        with parts, Workers(options.jobs) as workers, bar() as progress:
            return Pass(manifest, parts, secret, workers).run(output, progress)

    if options.output == PIPE:
        warn_unless_signed(manifest, keys, path)
        with explaining_writes("standard output"):
            into(Pipe(sys.stdout.fileno()))
        return 0
    output = options.output or Path(f"{manifest.file_stem}.img")
    size, said = human(_to_file(output, options, into)), signature_in_words(manifest, keys)
    tell(f"{output}: {size}, all digests hold; signature: {said}")
    return 0


def _refuse_needless(options: _Options) -> None:
    for option, given in (("--force", options.force), ("--sparse", options.sparse)):
        if given:
            raise UsageError(f"{option} is for a file; standard output gets every byte in order")


def _to_file(output: Path, options: _Options, into: Callable[[Output], Passed]) -> int:
    """Write the image to a file, and return its size; it is named when all is proved."""
    with explaining_writes(output), NewFile(output.absolute(), force=options.force) as new:
        return into(SparseFile(new.file, sparse=options.sparse)).member.size
