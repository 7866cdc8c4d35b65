"""`bundlefs inspect`: what a disk, a bundle or a mount is, told by its content; nothing is written.

A mount is told by its own status, a bundle by its manifest, and all else is taken for a disk.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundlefs.base.errors import BundleError, ImageError, MountError
from bundlefs.cli import inspected
from bundlefs.cli.common import Subparsers
from bundlefs.cli.given import load_keys
from bundlefs.cli.inspected_text import described
from bundlefs.cli.kinds import no_disk
from bundlefs.cli.options import typed
from bundlefs.cli.options.keys import OpeningKeyOptions, add_opening_key_options
from bundlefs.cli.options.logs import add_quiet
from bundlefs.cli.streams import show
from bundlefs.cli.waits import waits_shown
from bundlefs.fuse.mountpoint import CONTROL_NAME, FS_TYPE, find_mount, read_status
from bundlefs.image import foreign, forms
from bundlefs.image.inspection import disk
from bundlefs.unbundling import facts
from bundlefs.unbundling.unlock import Keys

_ENDINGS = (".manifest.xml", ".xml")
_MOST_MANIFESTS = 64


@dataclass(frozen=True, slots=True)
class _Options:
    path: Path
    parts: Path | None
    keys: OpeningKeyOptions
    json: bool
    quiet: bool


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "inspect",
        help="show what a disk, a bundle or a mount is, and what EC2 will make of it",
        description="Show what PATH is: a disk image (its form, partitions and file systems, how"
        " large its bundle will be, and what EC2 will make of it), a bundle (its folder or its"
        " manifest), or a mount of bundlefs. Nothing is written, and no account is needed.",
        allow_abbrev=False,
    )
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--parts",
        type=Path,
        metavar="DIR",
        help="folder of a bundle's parts (default: the manifest's)",
    )
    add_opening_key_options(parser)
    add_quiet(parser.add_argument)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, and print what was found."""
    options = typed(_Options, arguments)
    keys = load_keys(options.keys)
    with waits_shown(quiet=options.quiet):
        document = _document(options, keys)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        for line in described(document, columns=_columns()):
            show(line)
    return 0


def _columns() -> int | None:
    """Return how many columns a line may have; None where it goes to no terminal."""
    if not sys.stdout.isatty():
        return None
    return min(80, max(shutil.get_terminal_size().columns, 40))


def _document(options: _Options, keys: Keys) -> dict[str, Any]:
    path = options.path
    if "\0" in str(path):
        raise ImageError(f"no image {path}: a path has no zero byte in it")
    if _is_mount(path):
        return inspected.of_mount(path, read_status(path))
    if manifests := _manifests(path):
        found = [facts.look(one, options.parts or one.parent, keys) for one in manifests]
        return inspected.of_bundles(path, found)
    return inspected.of_disk(path, disk.look(path))


def _is_mount(path: Path) -> bool:
    try:
        return (path / CONTROL_NAME).is_dir() or find_mount(path.absolute()) == FS_TYPE
    except OSError:
        return find_mount(path.absolute()) == FS_TYPE


def _manifests(path: Path) -> list[Path]:
    """Return the manifests that are meant: in the folder, the file, or that of a part."""
    if path.is_dir():
        return _in_folder(path)
    try:
        if not path.is_file():
            return []  # to open a FIFO would wait for a writer
        with path.open("rb") as file:
            head = file.read(forms.HEAD_SIZE)
    except OSError:
        return []  # whoever opens it as a disk says what is wrong
    if manifest := foreign.bundle_of(path):
        return [manifest]
    if what := no_disk(head):
        raise ImageError(f"{path} {what}")
    return [path] if _is_xml(head) else []


def _is_xml(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"<?xml", b"<manifest", b"<!--"))


def _in_folder(path: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208  # its OSErrors carry the text we show
    except OSError as error:
        if find_mount(path.absolute()) == FS_TYPE:
            raise MountError(f"the mount at {path} does not answer: {error.strerror}") from error
        raise BundleError(f"cannot look into {path}: {error.strerror}") from error
    for ending in _ENDINGS:
        found = [path / name for name in names if name.endswith(ending)]
        if found:
            return found[:_MOST_MANIFESTS]
    raise BundleError(
        f"the folder {path} has no manifest (NAME.manifest.xml) in it, and is no mount of bundlefs:"
        " name a disk image, a manifest, a bundle's folder or a mount"
    )
