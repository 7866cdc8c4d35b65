"""What the commands for a bundle that is there share: arguments, keys, a progress bar."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundlefs.cli.bars import Bar
from bundlefs.cli.common import positive
from bundlefs.cli.passphrase import add_passphrase_options, passphrase
from bundlefs.unbundle import Progress
from bundlefs.unlock import Keys
from bundlefs.workers import default_jobs

PIPE = Path("-")
"""As an output: standard output."""


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the manifest, its parts and the keys."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    add = parser.add_argument
    add("--parts", type=Path, metavar="DIR", help="folder of the parts (default: the manifest's)")
    add_key_arguments(parser)


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the keys."""
    add = parser.add_argument
    add("--user-key", type=Path, metavar="PEM", help="your private key: decrypts")
    add("--user-cert", type=Path, metavar="PEM", help="your certificate: checks the signature")
    add("--ec2-key", type=Path, metavar="PEM", help="EC2's private key, of a cloud of your own")
    add_passphrase_options(parser)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Declare the number of threads."""
    parser.add_argument(
        "--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)"
    )


def load_keys(arguments: argparse.Namespace) -> Keys:
    """Read the keys that are given."""
    return Keys.load(
        arguments.user_key,
        arguments.user_cert,
        arguments.ec2_key,
        passphrase(arguments, arguments.user_key or arguments.ec2_key),
    )


def parts_folder(arguments: argparse.Namespace) -> Path:
    """Give the folder of the parts; absolute, since a mount leaves the folder it began in."""
    folder: Path = arguments.parts or arguments.manifest.parent
    return folder.absolute()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show on a terminal how far a pass over the parts is."""
    with Bar(
        unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None, file=sys.stderr
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
