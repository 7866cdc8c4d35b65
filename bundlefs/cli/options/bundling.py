"""Options for the bundle that is made: what goes into it, how it is made, and what is kept."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.memory import share_of_memory
from bundlefs.base.workers import default_jobs
from bundlefs.bundling.store import DEFAULT_CACHE_SIZE
from bundlefs.cli.common import positive, size
from bundlefs.cli.options.keys import KeyOptions, add_key_options
from bundlefs.image.forms import NAMED, Form
from bundlefs.state.places import default_folder


@dataclass(frozen=True, slots=True)
class ArchOptions:
    """The architecture that is asked for."""

    arch: str | None
    force_arch: bool


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How an image is taken."""

    source: str | None
    type: str
    no_size_limit: bool

    @property
    def as_it_is(self) -> bool:
        """Whether the bytes of the file are the image; a kernel or ramdisk is no disk."""
        return self.source == "raw" or self.type in ("kernel", "ramdisk")

    @property
    def form(self) -> Form | None:
        """The form that it must have, if one is asked for."""
        return Form(self.source) if self.source in NAMED else None


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How a bundle is made."""

    level: int
    jobs: int


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """What is made ahead, and where blocks are kept in the meantime."""

    eager: bool
    cache_size: int
    cache_dir: Path | None
    no_page_cache: bool


@dataclass(frozen=True, slots=True)
class StateOptions:
    """Where a bundle's key and index are kept, and whether an earlier one is gone on with."""

    state: str | None
    fresh: bool

    @property
    def nowhere(self) -> bool:
        """Whether nothing outlasts the command."""
        return self.state == "none"


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """All that says what a bundle is, and how it comes to be."""

    prefix: str
    account: str | None
    type: str
    kernel: str | None
    ramdisk: str | None
    kernel_name: str | None
    block_device_mapping: list[str]
    product_code: list[str]
    ancestor_ami: list[str]
    no_sparse: bool
    with_index: bool
    arch: ArchOptions
    image: ImageOptions
    keys: KeyOptions
    work: WorkOptions
    state: StateOptions


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes into the bundle: `BundleOptions`, but for `work` and `state`."""
    add = parser.add_argument_group("the bundle").add_argument
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
        "--with-index",
        action="store_true",
        help="add PREFIX.index, with which `bundlefs open` reads the bundle at random on any host;"
        " EC2 does not look at it",
    )
    _add_image_options(add)
    add_key_options(parser)


def _add_image_options(add: Callable[..., object]) -> None:
    add(
        "--source",
        choices=("auto", "raw", *NAMED),
        help="auto: IMAGE is in one of these forms, as its bytes tell, and what is known to be no"
        " disk is refused; raw: take it as it is; another: it must be that, also on a block device"
        " (default: auto; a kernel or ramdisk is always taken as it is)",
    )
    add("--no-sparse", action="store_true", help="store holes of the image as zeros")
    add("--no-size-limit", action="store_true", help="do not warn of an image over 10 GiB")


def add_arch_options(add: Callable[..., object], default: str) -> None:
    """Declare `ArchOptions`; `default` says what holds without."""
    add(
        "--arch",
        metavar="ARCH",
        help="x86_64, i386 or arm64, by any of their usual names (default: " + default + ")",
    )
    add(
        "--force-arch",
        action="store_true",
        help="take any --arch as it is written, for another cloud: armhf, ppc64le, ...",
    )


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Declare `WorkOptions`."""
    add = parser.add_argument_group("work").add_argument
    add("--level", type=int, default=6, help="0 (stored), 1 (fastest) to 9 (smallest) (default: 6)")
    add("--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)")


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Declare `CacheOptions`."""
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
    add(
        "--no-page-cache",
        action="store_true",
        help="do not have the kernel keep finished parts for who reads them later; it keeps them"
        " in memory that nobody else needs, and drops them when somebody does",
    )


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Declare `StateOptions`."""
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
