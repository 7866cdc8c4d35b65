"""`bundlefs mount`: the options of a bundle and of a mount, checked before anything is made."""

import argparse
import os
import shlex
from pathlib import Path

from bundlefs.base.errors import ImageError, UsageError
from bundlefs.base.memory import share_of_memory
from bundlefs.base.workers import default_jobs
from bundlefs.bundling.recipe import Recipe, check_prefix
from bundlefs.bundling.store import DEFAULT_CACHE_SIZE
from bundlefs.cli.architecture import add_arch_options, arch_of_metadata
from bundlefs.cli.common import Subparsers, needs_fuse, positive, read_certs, reported, size
from bundlefs.cli.mountopts import add_mount_options
from bundlefs.cli.passphrase import add_passphrase_options, passphrase, warn_of_access
from bundlefs.cli.prefixes import warn_of_prefix
from bundlefs.fuse.daemon import in_background
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
    _add_cache_options(parser)
    add_state_options(parser)
    add_mount_options(parser)
    parser.set_defaults(run=run)


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes into the bundle."""
    group = parser.add_argument_group("the bundle")
    add = group.add_argument
    add("--prefix", default="image", help="names start with it (default: %(default)s)")
    add("--account", metavar="ID", help="your AWS account, 12 digits (or BUNDLEFS_ACCOUNT)")
    add_arch_options(add, "the image's, where that can be seen, else this host's")
    add("--type", default="machine", help="machine, kernel or ramdisk (default: %(default)s)")
    add("--kernel", metavar="AKI", help="kernel ID")
    add("--ramdisk", metavar="ARI", help="ramdisk ID")
    add("--kernel-name", metavar="NAME", help="for --type kernel")
    add(
        "-B",
        "--block-device-mapping",
        metavar="VIRTUAL=DEVICE",
        action="append",
        default=[],
        help="for instance ami=sda, root=/dev/sda1, ephemeral0=sdb (repeatable)",
    )
    add("--product-code", metavar="CODE", action="append", default=[], help="repeatable")
    add("--ancestor-ami", metavar="AMI", action="append", default=[], help="repeatable")
    add(
        "--source",
        choices=("auto", "raw"),
        help="auto: IMAGE may be raw, gzip, bzip2, xz, zstd, qcow2, vmdk or vdi, as its first bytes"
        " tell, and what is known to be no disk is refused; raw: take it as it is (default: auto;"
        " a kernel or ramdisk is always taken as it is)",
    )
    add("--no-sparse", action="store_true", help="store holes of the image as zeros")
    add("--no-size-limit", action="store_true", help="do not warn of an image over 10 GiB")
    _add_key_options(parser)


def _add_key_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("keys")
    add = group.add_argument
    add(
        "--region",
        metavar="REGION",
        action="append",
        default=[],
        help="make a manifest for this region; those with EC2's standard key share"
        " PREFIX.manifest.xml, others get PREFIX.REGION.manifest.xml (repeatable;"
        " default: the standard key alone)",
    )
    add(
        "--ec2-cert",
        metavar="[REGION=]PEM",
        action="append",
        default=[],
        help="EC2's certificate or public key, for a region or cloud that bundlefs does not know"
        " (repeatable)",
    )
    add("--user-key", metavar="PEM", type=Path, help="your private RSA key: signs, and decrypts")
    add(
        "--user-cert",
        metavar="PEM",
        type=Path,
        help="your certificate or public key; alone, it leaves the signature to a key that is not"
        " kept, so that the way back needs --ignore-signature",
    )
    add_passphrase_options(group)


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Declare how it is made."""
    add = parser.add_argument_group("work").add_argument
    add("--level", type=int, default=6, help="0 stored, 1 fastest to 9 smallest (default: 6)")
    add("--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)")


def _add_cache_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is kept in the meantime").add_argument
    add("--eager", action="store_true", help="start the index pass at once")
    add(
        "--cache-size",
        type=size,
        default=share_of_memory(DEFAULT_CACHE_SIZE),
        metavar="SIZE",
        help="memory for sealed blocks, 0 for none (default: 256M, or a quarter of the memory"
        " that there is)",
    )
    add(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep all sealed blocks in a nameless file here, so that none is compressed twice",
    )


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is kept."""
    add = parser.add_argument_group("what outlasts the mount").add_argument
    add(
        "--state",
        metavar="FILE",
        help="where the bundle's key and index outlast the mount, or 'none'"
        # argparse takes % for a format.
        " (default: one for each image and prefix in"
        f" {default_folder()}); the last bundles are kept beside it".replace("%", "%%"),
    )
    add("--fresh", action="store_true", help="begin a new bundle with a new key")


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, then mount: here, or in the background."""
    recipe = read_recipe(arguments)
    if arguments.image.is_dir():
        check_folder(arguments)
    warn_of_prefix(recipe.prefix)
    with needs_fuse():
        from bundlefs.cli.session import run_session  # noqa: PLC0415  # loads the event loop

    if arguments.foreground:
        return run_session(arguments, recipe, lambda: None)
    # All that asks or reads secrets is done: the child has no terminal.
    return in_background(
        lambda ready: reported(lambda: run_session(arguments, recipe, ready)),
    )


def check_folder(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant for all images of a folder.

    Raises:
        UsageError: an option is for one image alone.
        ImageError: the folder cannot be read.
    """
    folder = arguments.image
    if arguments.state not in (None, "none"):
        raise UsageError(
            f"--state {arguments.state}: {folder} is a folder of images, and each has a state of"
            f" its own, in {default_folder()}; XDG_STATE_HOME names another place"
        )
    if arguments.eager:
        raise UsageError(
            f"--eager: {folder} is a folder of images, and each is begun when it is looked into"
        )
    try:
        names = os.listdir(folder)  # noqa: PTH208  # its OSErrors carry the text we show
    except OSError as error:
        raise ImageError(f"cannot read the folder of images {folder}: {error.strerror}") from error
    if arguments.source != "raw":
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
    """Give what the options ask to be made.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    if arguments.fresh and arguments.state == "none":
        raise UsageError("--fresh: with --state none every bundle is a new one; leave one out")
    account = arguments.account or os.environ.get("BUNDLEFS_ACCOUNT")
    if not account:
        raise UsageError(_NO_ACCOUNT)
    if not 0 <= arguments.level <= 9:  # noqa: PLR2004  # gzip's own range
        raise UsageError(f"--level {arguments.level}: levels go from 0 (stored) to 9 (smallest)")
    metadata = Metadata(
        account=account,
        arch=arch_of_metadata(arguments),
        image_type=arguments.type,
        kernel=arguments.kernel,
        ramdisk=arguments.ramdisk,
        mappings=tuple(parse_mapping(text) for text in arguments.block_device_mapping),
        product_codes=tuple(arguments.product_code),
        ancestors=tuple(arguments.ancestor_ami),
        kernel_name=arguments.kernel_name,
        any_arch=arguments.force_arch,
    )
    prefix = check_prefix(arguments.prefix)
    keys = UserKeys.load(
        arguments.user_key, arguments.user_cert, passphrase(arguments, arguments.user_key)
    )
    warn_of_access(arguments.user_key, arguments.passphrase_file)
    lasting = arguments.user_key or arguments.user_cert
    return Recipe(
        prefix=prefix,
        metadata=metadata,
        recipients=recipients(prefix, arguments.region, read_certs(arguments.ec2_cert)),
        user_keys=keys,
        level=arguments.level,
        sparse=not arguments.no_sparse,
        user_key=fingerprint(keys.public) if lasting else "made for the occasion",
    )
