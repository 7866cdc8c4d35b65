"""`bundlefs mount`: what its options ask for is checked before anything is made."""

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from bundlefs.base.errors import ImageError, UsageError
from bundlefs.bundling.recipe import EPHEMERAL, Recipe, check_prefix
from bundlefs.cli.architecture import arch_of_metadata
from bundlefs.cli.certs import read_certs
from bundlefs.cli.common import Subparsers, needs_fuse, reported
from bundlefs.cli.misuse import refuse_folder_first
from bundlefs.cli.opening import open_image
from bundlefs.cli.options import typed
from bundlefs.cli.options.bundling import (
    BundleOptions,
    add_bundle_options,
    add_cache_options,
    add_state_options,
    add_work_options,
)
from bundlefs.cli.options.keys import KeyOptions
from bundlefs.cli.options.mounting import ImageMount, add_mount_options
from bundlefs.cli.passphrase import passphrase, warn_of_access
from bundlefs.cli.prefixes import warn_of_prefix
from bundlefs.fuse.daemon import in_background
from bundlefs.fuse.mountpoint import check_mountpoint
from bundlefs.image.foreign import bundle_of
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import UserKeys, fingerprint
from bundlefs.manifest.write import Metadata, parse_mapping
from bundlefs.state.places import default_folder

_NO_ACCOUNT = (
    "no account: give --account or set BUNDLEFS_ACCOUNT to the 12 digits that"
    " `aws sts get-caller-identity --query Account --output text` prints"
)


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "mount",
        help="show an image as a bundle",
        description="Show IMAGE, a raw disk image or block device, at MOUNTPOINT as a bundle:"
        " PREFIX.part.NN and PREFIX.manifest.xml, made as they are read. Of a folder, show a"
        " folder for each image in it.",
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="or a folder of images")
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    add_bundle_options(parser)
    add_work_options(parser)
    add_cache_options(parser)
    add_state_options(parser)
    add_mount_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, then mount: here, or in the background."""
    options, recipe = _checked(arguments)
    warn_of_prefix(recipe.prefix)

    def serve(ready: Callable[[], None]) -> int:
        # In the child alone: the parent has nothing to load, and nothing to take down.
        with needs_fuse():
            from bundlefs.cli.session import run_session  # noqa: PLC0415  # loads the event loop

        return run_session(options, recipe, ready)

    if options.mount.foreground:
        return serve(lambda: None)
    # All that asks or reads secrets is done: the child has no terminal.
    return in_background(lambda ready: reported(lambda: serve(ready)))


def check(arguments: argparse.Namespace) -> None:
    """Do all that can fail before a mount is made."""
    options, _ = _checked(arguments)
    check_mountpoint(options.mount.mountpoint)
    if not options.image.is_dir():
        open_image(options.bundle.image, options.bundle.state, options.image).close()


def _checked(arguments: argparse.Namespace) -> tuple[ImageMount, Recipe]:
    """Return what is asked for.

    Raises:
        UsageError: it cannot be meant, or an option has a value that cannot be used.
        ImageError: a folder of images cannot be read.
    """
    options = typed(ImageMount, arguments)
    refuse_folder_first("mount", "image", options.image, options.mount.mountpoint)
    recipe = read_recipe(arguments)
    if options.image.is_dir():
        _check_folder(options)
    return options, recipe


def _check_folder(options: ImageMount) -> None:
    """Refuse what cannot be meant for all images of a folder.

    Raises:
        UsageError: an option is for one image alone.
        ImageError: the folder cannot be read.
    """
    folder, state = options.image, options.bundle.state
    if state.state and not state.nowhere:
        raise UsageError(
            f"--state {state.state}: {folder} is a folder of images, and each has a state of"
            f" its own, in {default_folder()}; XDG_STATE_HOME names another place"
        )
    if options.cache.eager:
        raise UsageError(
            f"--eager: {folder} is a folder of images, and each is begun when it is looked into"
        )
    try:
        names = os.listdir(folder)  # noqa: PTH208  # its OSErrors carry the text we show
    except OSError as error:
        raise ImageError(f"cannot read the folder of images {folder}: {error.strerror}") from error
    if options.bundle.image.source != "raw":
        _require_no_bundle(folder, names)


def _require_no_bundle(folder: Path, names: list[str]) -> None:
    """Refuse the folder of a bundle: each of its parts would be made a bundle of its own."""
    manifests = (bundle_of(folder / name) for name in sorted(names))
    if manifest := next(filter(None, manifests), None):
        raise ImageError(
            f"{folder} is no folder of images, but has a bundle in it: bundlefs open"
            f" {shlex.quote(str(manifest))} MOUNTPOINT shows the image that is in that; if there"
            " are images beside it, move it away (--source raw takes every file as it is)"
        )


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """Return what the command line asks to be made.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    options = typed(BundleOptions, arguments)
    if options.state.fresh and options.state.nowhere:
        raise UsageError("--fresh: with --state none every bundle is a new one; leave one out")
    level = options.work.level
    if not 0 <= level <= 9:  # noqa: PLR2004  # gzip's own range
        raise UsageError(f"--level {level}: levels go from 0 (stored) to 9 (smallest)")
    metadata = _metadata(options)
    prefix, keys = check_prefix(options.prefix), _user_keys(options.keys)
    lasting = options.keys.user_key or options.keys.user_cert
    return Recipe(
        prefix=prefix,
        metadata=metadata,
        recipients=recipients(prefix, options.keys.region, read_certs(options.keys.ec2_cert)),
        user_keys=keys,
        level=level,
        sparse=not options.no_sparse,
        user_key=fingerprint(keys.public) if lasting else EPHEMERAL,
        with_index=options.with_index,
    )


def _metadata(options: BundleOptions) -> Metadata:
    account = options.account or os.environ.get("BUNDLEFS_ACCOUNT")
    if not account:
        raise UsageError(_NO_ACCOUNT)
    return Metadata(
        account=account,
        arch=arch_of_metadata(options.arch),
        image_type=options.type,
        kernel=options.kernel,
        ramdisk=options.ramdisk,
        mappings=tuple(parse_mapping(text) for text in options.block_device_mapping),
        product_codes=tuple(options.product_code),
        ancestors=tuple(options.ancestor_ami),
        kernel_name=options.kernel_name,
        any_arch=options.arch.force_arch,
    )


def _user_keys(options: KeyOptions) -> UserKeys:
    keys = UserKeys.load(
        options.user_key, options.user_cert, passphrase(options.passphrase, options.user_key)
    )
    warn_of_access(options.user_key, options.passphrase.passphrase_file)
    return keys
