"""`bundlefs manifest`: a manifest for other regions, from one that exists; the parts stay."""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs.base.errors import UsageError
from bundlefs.cli.architecture import asked
from bundlefs.cli.certs import read_certs
from bundlefs.cli.common import Subparsers
from bundlefs.cli.given import (
    PIPE,
    load_keys,
    read_given,
    unlock_given,
    warn_unless_signed,
)
from bundlefs.cli.new_file import NewFile, explaining_writes
from bundlefs.cli.options import typed
from bundlefs.cli.options.bundling import ArchOptions, add_arch_options
from bundlefs.cli.options.given import add_ignore_signature, add_manifest
from bundlefs.cli.options.keys import OpeningKeyOptions, add_opening_key_options
from bundlefs.cli.streams import tell
from bundlefs.keys.regions import Recipient, recipients
from bundlefs.keys.rsa import UserKeys
from bundlefs.manifest.read import BundleManifest
from bundlefs.manifest.sealed import render_anew
from bundlefs.manifest.write import Metadata, parse_mapping
from bundlefs.unbundling.outputs import Output, Pipe, SparseFile


@dataclass(frozen=True, slots=True)
class _Options:
    manifest: Path
    keys: OpeningKeyOptions
    ignore_signature: bool
    region: list[str]
    ec2_cert: list[str]
    account: str | None
    arch: ArchOptions
    kernel: str | None
    ramdisk: str | None
    block_device_mapping: list[str] | None
    output: Path
    force: bool


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "manifest",
        help="make a manifest for another region, kernel or mapping",
        description="Make a manifest for other regions from MANIFEST: the key is unwrapped with"
        " yours, wrapped for EC2's there, and signed anew. The parts stay as they are.",
        allow_abbrev=False,
    )
    add_manifest(parser)
    add_opening_key_options(parser)
    add_ignore_signature(parser)
    add = parser.add_argument
    add("--region", action="append", default=[], metavar="REGION", help="repeatable")
    add("--ec2-cert", action="append", default=[], metavar="[REGION=]PEM", help="repeatable")
    add("--account", metavar="ID", help="another AWS account")
    add_arch_options(add, "as it is")
    add("--kernel", metavar="AKI", help="another kernel; '' for none")
    add("--ramdisk", metavar="ARI", help="another ramdisk; '' for none")
    add(
        "-B",
        "--block-device-mapping",
        action="append",
        metavar="VIRTUAL=DEVICE",
        help="another mapping (repeatable); '' for none",
    )
    add("-o", "--output", type=Path, metavar="FILE|DIR", default=PIPE, help="default: '-', stdout")
    add("--force", action="store_true", help="overwrite FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the manifests."""
    options = typed(_Options, arguments)
    if options.force and options.output == PIPE:
        raise UsageError("--force is for a file; name one, or a folder, with -o")
    keys = load_keys(options.keys)
    wanted = recipients("image", options.region, read_certs(options.ec2_cert))
    manifest = read_given(options.manifest)
    secret = unlock_given(manifest, keys, options.manifest, ignore=options.ignore_signature)
    warn_unless_signed(manifest, keys, options.manifest)
    # With EC2's key alone there is no user's key: as in a mount, an ephemeral one is made.
    user = UserKeys(None, keys.user)
    metadata = _metadata(manifest, options)
    named = [replace(to, filename=_renamed(to.filename, manifest)) for to in wanted]
    for to in named:
        text = render_anew(manifest, metadata, to, user, secret)
        _write(text, to, options, several=len(named) > 1)
    return 0


def _renamed(filename: str, manifest: BundleManifest) -> str:
    return manifest.file_stem + filename.removeprefix("image")


def _metadata(manifest: BundleManifest, options: _Options) -> Metadata:
    mappings = manifest.mappings
    if options.block_device_mapping is not None:
        mappings = tuple(parse_mapping(text) for text in options.block_device_mapping if text)
    return Metadata(
        account=options.account or manifest.user,
        arch=asked(options.arch) or manifest.arch,
        image_type=manifest.image_type,
        kernel=_other(options.kernel, manifest.kernel),
        ramdisk=_other(options.ramdisk, manifest.ramdisk),
        mappings=mappings,
        product_codes=manifest.product_codes,
        ancestors=manifest.ancestors,
        kernel_name=manifest.kernel_name,
        any_arch=True,  # what the manifest says is not ours to question
    )


def _other(given: str | None, old: str | None) -> str | None:
    return old if given is None else given or None


def _write(text: bytes, to: Recipient, options: _Options, *, several: bool) -> None:
    output = options.output
    if several and not output.is_dir():
        raise UsageError("several manifests: name a folder for them with -o")
    if output == PIPE:
        with explaining_writes("standard output"):
            _put(text, Pipe(sys.stdout.fileno()))
        return
    path = (output / to.filename if output.is_dir() else output).absolute()
    with explaining_writes(path), NewFile(path, force=options.force) as new:
        _put(text, SparseFile(new.file, sparse=False))
    tell(f"{path}: for {', '.join(to.regions) or 'the standard key'}")


def _put(text: bytes, output: Output) -> None:
    output.write(0, memoryview(text))
    output.finish(len(text))
