"""Options for a bundle that is there: its manifest, its parts, and how far it is trusted."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from bundlefs.base.errors import BundleError, UsageError
from bundlefs.base.workers import default_jobs
from bundlefs.cli.common import positive
from bundlefs.cli.options.keys import OpeningKeyOptions, add_opening_key_options


@dataclass(frozen=True, slots=True)
class GivenBundle:
    """A bundle that is there, and the keys for it."""

    manifest: Path
    parts: Path | None
    keys: OpeningKeyOptions

    @property
    def folder(self) -> Path:
        """The folder of the parts; absolute, since a mount leaves the folder it began in."""
        return (self.parts or self.manifest.parent).absolute()


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `GivenBundle`."""
    add_manifest(parser)
    parser.add_argument(
        "--parts", type=Path, metavar="DIR", help="folder of the parts (default: the manifest's)"
    )
    add_opening_key_options(parser)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Declare the manifest."""
    parser.add_argument(
        "manifest", type=_manifest, metavar="MANIFEST", help="or a folder with one in it"
    )


def _manifest(text: str) -> Path:
    """Return the manifest that is meant; what is wrong with it is said when it is read."""
    from bundlefs.manifest.read import find_manifest  # noqa: PLC0415  # a mount has none

    try:
        return find_manifest(text)
    except (BundleError, UsageError):
        return Path(text)


def add_ignore_signature(parser: argparse.ArgumentParser) -> None:
    """Declare the option to trust what the user's key did not sign."""
    parser.add_argument(
        "--ignore-signature",
        action="store_true",
        help="go on with a manifest that your key did not sign; it may be anybody's",
    )


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Declare the number of threads."""
    parser.add_argument(
        "--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)"
    )
