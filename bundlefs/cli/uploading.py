"""`bundlefs-upload`: a bundle into a bucket, by aws-cli or rclone."""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from bundlefs.base import signals
from bundlefs.base.errors import UsageError
from bundlefs.cli import streams
from bundlefs.cli.common import Parser, reported
from bundlefs.upload.aws import ENABLE_ACLS
from bundlefs.upload.order import upload
from bundlefs.upload.places import Place, Wanted, place

PROGRAM = "bundlefs-upload"

_ABOUT = """Upload a bundle for EC2: the parts, then the manifests, then the AMI.

    bundlefs-upload [OPTIONS] SOURCE s3://BUCKET/PREFIX       by aws-cli
    bundlefs-upload [OPTIONS] SOURCE REMOTE:BUCKET/PREFIX     by rclone

SOURCE is a mount of bundlefs or a folder that `bundlefs bundle` wrote. The tools bring the
credentials and do all that needs a network. A manifest goes up only when every part of it is
there with its size; run the same command again to go on after a failure. The last lines are the
commands that register an AMI, or with --register its ID.

How much memory the tools take does not depend on the number of parts; aws-cli takes less after
`aws configure set default.s3.max_concurrent_requests 2`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every error is one line on stderr."""
    streams.prepare()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A command to run has the bytes of a name.
        sys.stdout.reconfigure(errors="surrogateescape")
    return reported(lambda: _run(_parser().parse_args(argv)), PROGRAM)


def _run(arguments: argparse.Namespace) -> int:
    with signals.raised():
        for line in upload(arguments.source, _wanted(arguments)):
            print(line)
    return 0


def _wanted(arguments: argparse.Namespace) -> Wanted:
    return Wanted(**{field.name: getattr(arguments, field.name) for field in fields(Wanted)})


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description=_ABOUT,
        epilog=f"To enable ACLs: {ENABLE_ACLS.format(bucket='BUCKET')}".replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE")
    add("dest", type=_place, metavar="DEST")
    add("--acl", default="aws-exec-read", help="(default: %(default)s)")
    add("--region", help="of the bucket and the AMI; chooses the manifest")
    add("--register", metavar="NAME", help="register the AMI, and print its ID")
    add("--root-device-name", default="/dev/xvda", help="(default: %(default)s)")
    add("--dry-run", action="store_true", help="check, and show what would be run")
    add("--no-check", action="store_true", help="do not look at the bucket's settings")
    return parser


def _place(text: str) -> Place:
    try:
        return place(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
