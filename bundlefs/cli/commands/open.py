"""`bundlefs open`: a bundle as a disk."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from bundlefs.cli.common import Subparsers, needs_fuse, reported
from bundlefs.cli.given import (
    load_keys,
    read_given,
    signature_in_words,
    unlock_given,
    warn_unless_signed,
)
from bundlefs.cli.misuse import refuse_folder_first
from bundlefs.cli.options import typed
from bundlefs.cli.options.given import add_bundle_arguments, add_ignore_signature
from bundlefs.cli.options.mounting import DiskMount, add_mount_options
from bundlefs.fuse.daemon import in_background
from bundlefs.fuse.mountpoint import check_mountpoint
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest

log = logging.getLogger(__name__)


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "open",
        help="show the image in a bundle, decrypted as it is read",
        description="Show the image in a bundle at MOUNTPOINT as a read-only file, and each of its"
        " partitions as another, decrypted and inflated as they are read, for losetup, mount -o"
        " ro,loop, fdisk -l and the like.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    parser.add_argument("--no-verify", action="store_true", help="do not check the parts' digests")
    add_ignore_signature(parser)
    add_mount_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, then mount: here, or in the background."""
    options = _options(arguments)
    manifest, secret, said = _unlocked(options)

    def serve(ready: Callable[[], None]) -> int:
        with needs_fuse():
            from bundlefs.cli.disk_session import open_session  # noqa: PLC0415  # the event loop

        def begun() -> None:
            log.info("%s: signature: %s", options.given.manifest, said)
            ready()

        return open_session(options, manifest, secret, begun)

    if options.mount.foreground:
        return serve(lambda: None)
    return in_background(lambda ready: reported(lambda: serve(ready)))


def check(arguments: argparse.Namespace) -> None:
    """Do all that can fail before a mount is made."""
    options = _options(arguments)
    check_mountpoint(options.mount.mountpoint)
    _unlocked(options)


def _options(arguments: argparse.Namespace) -> DiskMount:
    options = typed(DiskMount, arguments)
    refuse_folder_first("open", "manifest", options.given.manifest, options.mount.mountpoint)
    return options


def _unlocked(options: DiskMount) -> tuple[BundleManifest, Secret, str]:
    """Return the manifest, its secret, and what its signature shows; warn where that is nothing."""
    path = options.given.manifest
    keys = load_keys(options.given.keys)
    manifest = read_given(path)
    secret = unlock_given(manifest, keys, path, ignore=options.ignore_signature)
    warn_unless_signed(manifest, keys, path)
    return manifest, secret, signature_in_words(manifest, keys)
