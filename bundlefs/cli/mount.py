"""`bundlefs mount`: the options of a bundle and of a mount, checked before anything is made."""

import argparse
import getpass
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bundlefs.bundle import Recipe
from bundlefs.cli.common import Subparsers, positive, reported, size
from bundlefs.daemon import in_background
from bundlefs.errors import KeyFileError, UsageError
from bundlefs.keys import UserKeys, fingerprint, load_public_key
from bundlefs.manifest import Metadata, parse_mapping
from bundlefs.regions import Recipient, recipients
from bundlefs.state import default_folder
from bundlefs.workers import default_jobs

_MAX_PREFIX = 100
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
        " PREFIX.part.NN and PREFIX.manifest.xml, made as they are read.",
        allow_abbrev=False,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    add_bundle_options(parser)
    _add_work_options(parser)
    _add_mount_options(parser)
    parser.set_defaults(run=run)


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes into the bundle."""
    group = parser.add_argument_group("the bundle")
    add = group.add_argument
    add("--prefix", default="image", help="names start with it (default: %(default)s)")
    add("--account", metavar="ID", help="your AWS account, 12 digits (or BUNDLEFS_ACCOUNT)")
    add("--arch", default=_host_arch(), help="x86_64, i386, arm64, ... (default: %(default)s)")
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
    add("--no-sparse", action="store_true", help="store holes of the image as zeros")
    add("--no-size-limit", action="store_true", help="do not warn of an image over 10 GiB")
    _add_key_options(parser)


def _add_key_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("keys").add_argument
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
    add("--user-cert", metavar="PEM", type=Path, help="your certificate or public key")
    add("--passphrase-file", metavar="FILE", type=Path, help="whose first line opens --user-key")
    add(
        "--passphrase-env",
        metavar="NAME",
        default="BUNDLEFS_PASSPHRASE",
        help="environment variable that opens --user-key (default: %(default)s)",
    )


def _add_work_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("work").add_argument
    add("--level", type=int, default=6, help="0 stored, 1 fastest to 9 smallest (default: 6)")
    add("--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)")
    add("--eager", action="store_true", help="start the index pass at once")
    add(
        "--cache-size",
        type=size,
        default=256 << 20,
        metavar="SIZE",
        help="memory for sealed blocks, 0 for none (default: 256M)",
    )
    add(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep all sealed blocks in a nameless file here, so that none is compressed twice",
    )


def _add_mount_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the mount").add_argument
    add(
        "--state",
        metavar="FILE",
        help="where the bundle's key and index outlast the mount, or 'none'"
        f" (default: one for each image and prefix in {default_folder()})",
    )
    add("--fresh", action="store_true", help="begin a new bundle with a new key")
    add("-f", "--foreground", action="store_true", help="stay, and show progress")
    add("--allow-other", action="store_true", help="let other users read it")
    add("-o", metavar="OPTION[,...]", action="append", default=[], help="FUSE options")
    add("--log-file", metavar="FILE", type=Path, help="log here (default: stderr, or syslog)")
    add("-v", "--verbose", action="store_true", help="log more")


def _host_arch() -> str:
    names = {"aarch64": "arm64", "i486": "i386", "i586": "i386", "i686": "i386"}
    machine = platform.machine()
    return names.get(machine, machine)


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, then mount: here, or in the background."""
    recipe = read_recipe(arguments)
    from bundlefs.cli.session import run_session  # noqa: PLC0415  # loads the event loop

    if arguments.foreground:
        return run_session(arguments, recipe, lambda: None)
    # All that asks or reads secrets is done: the child has no terminal.
    return in_background(
        lambda ready: reported(lambda: run_session(arguments, recipe, ready)),
    )


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """Give what the options ask to be made.

    Raises:
        UsageError: an option has a value that cannot be used.
    """
    account = arguments.account or os.environ.get("BUNDLEFS_ACCOUNT")
    if not account:
        raise UsageError(_NO_ACCOUNT)
    if not 0 <= arguments.level <= 9:  # noqa: PLR2004  # gzip's own range
        raise UsageError(f"--level {arguments.level}: levels go from 0 (stored) to 9 (smallest)")
    metadata = Metadata(
        account=account,
        arch=arguments.arch,
        image_type=arguments.type,
        kernel=arguments.kernel,
        ramdisk=arguments.ramdisk,
        mappings=tuple(parse_mapping(text) for text in arguments.block_device_mapping),
        product_codes=tuple(arguments.product_code),
        ancestors=tuple(arguments.ancestor_ami),
        kernel_name=arguments.kernel_name,
    )
    prefix = check_prefix(arguments.prefix)
    keys = UserKeys.load(arguments.user_key, arguments.user_cert, passphrase(arguments))
    lasting = arguments.user_key or arguments.user_cert
    return Recipe(
        prefix=prefix,
        metadata=metadata,
        recipients=read_recipients(arguments),
        user_keys=keys,
        level=arguments.level,
        sparse=not arguments.no_sparse,
        user_key=fingerprint(keys.public) if lasting else "made for the occasion",
    )


def check_prefix(prefix: str) -> str:
    """Give the prefix if file names and the tar header can start with it."""
    name = prefix.encode("utf-8", "surrogateescape")
    if not prefix or "/" in prefix or not prefix.isprintable() or prefix.startswith("."):
        raise UsageError(
            f"--prefix {prefix!r}: it starts file names, so it must not be empty, start with a dot,"
            " or have '/' or control characters in it"
        )
    if len(name) > _MAX_PREFIX:
        raise UsageError(f"--prefix {prefix!r}: {len(name)} bytes; tar has room for {_MAX_PREFIX}")
    return prefix


def read_recipients(arguments: argparse.Namespace) -> tuple[Recipient, ...]:
    """Give the manifests that --region and --ec2-cert ask for."""
    certs = []
    for text in arguments.ec2_cert:
        region, separator, path = text.partition("=")
        # A path may have '=' in it as well; what exists is a path.
        if not separator or Path(text).exists():
            region, path = "", text
        certs.append((region or None, load_public_key(Path(path))))
    return recipients(arguments.prefix, arguments.region, certs)


def passphrase(arguments: argparse.Namespace) -> Callable[[], str]:
    """Give what finds the passphrase of the user's key once it is needed."""

    def find() -> str:
        if arguments.passphrase_file:
            return _first_line(arguments.passphrase_file)
        if arguments.passphrase_env in os.environ:
            return os.environ[arguments.passphrase_env]
        return _ask(arguments)

    return find


def _ask(arguments: argparse.Namespace) -> str:
    # Python has no stdin at all where the caller closed it.
    if sys.stdin is None or not sys.stdin.isatty():
        missing = "there is no terminal to ask for its passphrase"
    else:
        try:
            return getpass.getpass(f"Passphrase of {arguments.user_key}: ")
        except EOFError:
            missing = "no passphrase was typed"
    raise KeyFileError(
        f"{arguments.user_key} is encrypted and {missing}:"
        f" give --passphrase-file or set {arguments.passphrase_env}"
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise KeyFileError(f"--passphrase-file {path}: {reason}") from error
