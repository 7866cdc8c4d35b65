"""`bundlefs open`: a bundle as a disk."""

import argparse
from pathlib import Path

from bundlefs.cli.bundles import add_bundle_arguments, load_keys
from bundlefs.cli.common import Subparsers, needs_fuse, reported
from bundlefs.cli.mountopts import add_mount_options
from bundlefs.daemon import in_background
from bundlefs.manifest_reader import read_manifest
from bundlefs.unlock import unlock


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "open",
        help="show the image in a bundle, decrypted as it is read",
        description="Show the image in a bundle at MOUNTPOINT as one read-only file, decrypted"
        " and inflated as it is read, for losetup, mount -o ro,loop, fdisk -l and the like.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    parser.add_argument("--no-verify", action="store_true", help="do not check the parts' digests")
    add_mount_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, then mount: here, or in the background."""
    manifest = read_manifest(arguments.manifest)
    secret = unlock(manifest, load_keys(arguments))
    with needs_fuse():
        from bundlefs.cli.session import open_session  # noqa: PLC0415  # loads the event loop

    if arguments.foreground:
        return open_session(arguments, manifest, secret, lambda: None)
    return in_background(
        lambda ready: reported(lambda: open_session(arguments, manifest, secret, ready))
    )
