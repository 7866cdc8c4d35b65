"""The order of an upload: parts, then their sizes compared, then manifests, then the AMI."""

import shlex
from pathlib import Path

from bundlefs.upload.aws import Aws
from bundlefs.upload.bundle import compare, read_bundle, registering, to_register
from bundlefs.upload.places import Wanted
from bundlefs.upload.rclone import Rclone
from bundlefs.upload.words import ask, do, need


def upload(source: Path, wanted: Wanted) -> list[str]:
    """Upload a bundle, and return the lines to show: commands that register, or an AMI's ID.

    Raises:
        UploadError: a tool failed, or the bundle or the bucket cannot be used.
        OSError: the bundle cannot be read.
    """
    if wanted.register:
        need("aws", "--register")
    tool = (Rclone if wanted.dest.remote else Aws)(wanted)
    bundle = read_bundle(source)
    manifests = to_register(bundle.manifests, wanted)
    if not wanted.no_check:
        tool.check()
    do(*tool.copying(bundle.folder, list(bundle.parts)), dry_run=wanted.dry_run)
    if not wanted.dry_run:
        compare(bundle, tool.sizes())
    do(*tool.copying(bundle.folder, bundle.manifests), dry_run=wanted.dry_run)
    return [_registered(registering(bundle, manifest, wanted), wanted) for manifest in manifests]


def _registered(words: list[str], wanted: Wanted) -> str:
    if wanted.register and not wanted.dry_run:
        return ask(*words, "--query", "ImageId", "--output", "text").strip()
    return shlex.join(words)
