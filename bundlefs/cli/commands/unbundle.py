"""`bundlefs unbundle`: a bundle back to its image."""

import argparse
import signal
import sys
from pathlib import Path

from bundlefs.base.errors import UsageError
from bundlefs.base.workers import Workers
from bundlefs.cli.bars import pass_bar
from bundlefs.cli.common import Subparsers, human
from bundlefs.cli.given import (
    PIPE,
    add_bundle_arguments,
    add_ignore_signature,
    add_jobs,
    load_keys,
    part_files,
    read_given,
    signature_in_words,
    unlock_given,
    warn_unless_signed,
)
from bundlefs.cli.new_file import NewFile, explaining_writes
from bundlefs.cli.streams import tell
from bundlefs.unbundling.extract import Pass, Passed
from bundlefs.unbundling.outputs import Output, Pipe, SparseFile


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "unbundle",
        help="write the image in a bundle to a file",
        description="Write the image in a bundle to a sparse file. It gets its name only when"
        " every digest held.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    add_jobs(parser)
    add_ignore_signature(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="IMAGE", help="'-' is standard output")
    add("--sparse", action="store_true", help="leave holes for runs of zeros, too")
    add("--force", action="store_true", help="overwrite IMAGE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Unbundle."""
    for option in ("force", "sparse"):
        if arguments.output == PIPE and getattr(arguments, option):
            raise UsageError(f"--{option} is for a file; standard output gets every byte in order")
    keys = load_keys(arguments)
    manifest = read_given(arguments)
    secret = unlock_given(manifest, keys, arguments)
    parts = part_files(manifest, arguments)

    def into(output: Output) -> Passed:
        with parts, Workers(arguments.jobs) as workers, pass_bar() as progress:
            return Pass(manifest, parts, secret, workers).run(output, progress)

    path = arguments.output or Path(f"{manifest.file_stem}.img")
    if path == PIPE:
        warn_unless_signed(manifest, keys, arguments.manifest)
        with explaining_writes("standard output"):
            into(Pipe(sys.stdout.fileno()))
        return 0
    # However it is ended, the temporary file goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with explaining_writes(path), NewFile(path.absolute(), force=arguments.force) as new:
        passed = into(SparseFile(new.file, sparse=arguments.sparse))
    size, said = human(passed.member.size), signature_in_words(manifest, keys)
    tell(f"{path}: {size}, all digests hold; signature: {said}")
    return 0
