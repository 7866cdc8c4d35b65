"""`bundlefs verify`: check a bundle as far as the keys at hand go, and say what was checked."""

import argparse
import sys
from collections.abc import Callable

from bundlefs.cli.bundles import (
    add_bundle_arguments,
    add_jobs,
    load_keys,
    parts_folder,
    progress_bar,
)
from bundlefs.cli.common import Subparsers, human
from bundlefs.cli.streams import show
from bundlefs.errors import BundleError
from bundlefs.manifest_reader import BundleManifest, read_manifest
from bundlefs.parts import PartFiles
from bundlefs.unbundle import Nowhere, Pass, check_parts
from bundlefs.unlock import Keys, is_signed_by, unlock
from bundlefs.workers import Workers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="check a bundle: parts, signature, decryption, digest, size",
        description="Check a bundle as far as the given keys go. Exit code 0 only if all that"
        " could be checked held.",
        allow_abbrev=False,
    )
    add_bundle_arguments(parser)
    add_jobs(parser)
    parser.set_defaults(run=run)


class _Report:
    """A line for each check; remembers whether one failed."""

    def __init__(self) -> None:
        self.failed = False

    def check(self, what: str, look: Callable[[], str]) -> bool:
        """Print what `look` found, or why it failed."""
        try:
            found = look()
        except BundleError as error:
            self.failed = True
            show(f"FAILED   {what}: {error}")
            return False
        show(f"ok       {what}: {found}")
        return True

    def skip(self, what: str, why: str) -> None:
        """Print why something was not checked."""
        show(f"skipped  {what}: {why}")


def run(arguments: argparse.Namespace) -> int:
    """Check everything that can be."""
    keys = load_keys(arguments)
    manifest = read_manifest(arguments.manifest)
    report = _Report()
    count = len(manifest.parts)
    show(f"ok       manifest: {manifest.name}, version {manifest.version}, {count} parts")
    _signature(report, manifest, keys)
    with Workers(arguments.jobs) as workers:
        _contents(report, manifest, keys, arguments, workers)
    sys.stdout.flush()
    return 1 if report.failed else 0


def _signature(report: _Report, manifest: BundleManifest, keys: Keys) -> None:
    verifier = keys.verifier
    if manifest.signature is None:
        report.skip("signature", "the manifest has none")
    elif verifier is None:
        report.skip("signature", "no certificate or key of the user given (--user-cert)")
    else:

        def look() -> str:
            if not is_signed_by(manifest, verifier):
                raise BundleError("it was not made by this key, or the manifest was changed since")
            return "made by this key"

        report.check("signature", look)


def _contents(
    report: _Report,
    manifest: BundleManifest,
    keys: Keys,
    arguments: argparse.Namespace,
    workers: Workers,
) -> None:
    found: list[PartFiles] = []

    def sizes() -> str:
        found.append(PartFiles(manifest, parts_folder(arguments)))
        total = human(found[0].size)
        return total if manifest.bundled_size else f"{total} (the manifest does not tell)"

    def digests() -> str:
        with found[0], progress_bar() as progress:
            check_parts(found[0], workers, progress)
        return f"all {len(found[0])}"

    def decryption() -> str:
        with found[0], progress_bar() as progress:
            passed = Pass(manifest, found[0], unlock(manifest, keys), workers).run(
                Nowhere(), progress
            )
        digest = passed.digest if manifest.digest else "not checked, the manifest has none"
        return f"image of {passed.member.size} bytes, tar digest {digest}"

    whole = False
    if report.check("sizes of the parts", sizes):
        whole = report.check("digests of the parts", digests)
    else:
        report.skip("digests of the parts", "the parts are not all there")
    if whole and keys.can_open:
        report.check("decryption, tar digest, image size", decryption)
    else:
        why = "no private key given (--user-key)" if whole else "the parts are damaged"
        report.skip("decryption, tar digest, image size", why)
