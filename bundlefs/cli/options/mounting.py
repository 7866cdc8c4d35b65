"""Options of everything that mounts: where, for whom, and what."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from bundlefs.cli.mountopts import MountOption
from bundlefs.cli.options.bundling import BundleOptions, CacheOptions
from bundlefs.cli.options.given import GivenBundle
from bundlefs.cli.options.logs import LogOptions, add_log_options


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Where something is mounted, and for whom."""

    mountpoint: Path
    allow_other: bool
    o: list[str]
    """FUSE's own among what `-o` was given."""
    log: LogOptions

    @property
    def foreground(self) -> bool:
        """Whether the command stays until the mount ends."""
        return self.log.foreground


@dataclass(frozen=True, slots=True)
class ImageMount:
    """A mount of an image, or of a folder of images."""

    image: Path
    bundle: BundleOptions
    cache: CacheOptions
    mount: MountOptions


@dataclass(frozen=True, slots=True)
class DiskMount:
    """A mount of the disk in a bundle."""

    given: GivenBundle
    no_verify: bool
    ignore_signature: bool
    mount: MountOptions


def add_mount_options(parser: argparse.ArgumentParser) -> None:
    """Declare `MountOptions`, but for the mountpoint."""
    add = parser.add_argument_group("the mount").add_argument
    add("-f", "--foreground", action="store_true", help="stay, and show progress")
    add("--allow-other", action="store_true", help="let other users read it")
    add(
        "-o",
        metavar="OPTION[,...]",
        action=MountOption,
        default=[],
        help="FUSE options, and all long options as NAME or NAME=VALUE, as mount(8) and fstab give"
        " them; a comma in a value is written '\\,' (repeatable)",
    )
    add("--sloppy", action="store_true", help="from here on only warn of unknown -o options")
    add_log_options(add)
