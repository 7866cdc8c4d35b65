"""`bundlefs-upload`: a bundle into a bucket, by aws-cli or rclone."""

import argparse
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path

from bundlefs.base import signals
from bundlefs.base.errors import UsageError
from bundlefs.cli import parser, streams
from bundlefs.cli.common import Parser, reported
from bundlefs.cli.hardening import rule_out_core_dumps
from bundlefs.cli.options.logs import add_quiet
from bundlefs.upload.aws import ENABLE_ACLS
from bundlefs.upload.feeds import Feed, feed_of
from bundlefs.upload.order import rehearse, rehearse_image, tool_for, upload
from bundlefs.upload.own_mount import fuse_refused, mounted
from bundlefs.upload.places import Place, Wanted, place
from bundlefs.upload.words import SaidError, tell
from bundlefs.upload.workplace import workplace

PROGRAM = "bundlefs-upload"

_ABOUT = """Upload a bundle for EC2: the parts, then the manifests, then the AMI.

    bundlefs-upload [OPTIONS] SOURCE s3://BUCKET/PREFIX       by aws-cli, or s5cmd
    bundlefs-upload [OPTIONS] SOURCE REMOTE:BUCKET/PREFIX     by rclone
    bundlefs-upload IMAGE DEST [OPTIONS] [OPTIONS OF bundlefs mount]

SOURCE is a mount of bundlefs, a folder that `bundlefs bundle` wrote, or an image, which is mounted
for as long as it takes. Where nothing can be mounted, each part is made, sent and removed again;
options are then those of `bundlefs bundle`. What is not an option below is passed on, and stands
behind DEST.

Each part is sent while the next ones are made. The tools bring the credentials and do all that
needs a network. A manifest goes up only when every part of it is there with its size; run the same
command again to go on after a failure. The last lines are the commands that register an AMI, or
with --register its ID.

How much memory the tools take does not depend on the number of parts; aws-cli takes less after
`aws configure set default.s3.max_concurrent_requests 2`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every error is one line on stderr."""
    streams.prepare()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A command to run has the bytes of a name.
        sys.stdout.reconfigure(errors="surrogateescape")
    return reported(lambda: _run(argv), PROGRAM)


def _run(argv: Sequence[str] | None) -> int:
    asked, words = upload_parser().parse_known_args(argv)
    if words and not words[0].startswith("-"):
        raise UsageError(f"{words[0]}: one SOURCE goes to one DEST, and this is one word more")
    regions = list(dict.fromkeys(asked.region))
    # An image gets a manifest for each; of several, none is the bucket's for sure.
    asked.region = regions[0] if len(regions) == 1 else None
    wanted = Wanted(**{field.name: getattr(asked, field.name) for field in fields(Wanted)})
    quiet = ["--quiet"] if asked.quiet else []
    of_regions = [word for region in regions for word in ("--region", region)]
    with signals.raised():
        try:
            lines = (
                _of_folder(asked, words, wanted, regions)
                if asked.source.is_dir()
                else _of_image(asked, [*words, *of_regions, *quiet], wanted)
            )
        except SaidError as error:
            return error.exit_code
        for line in lines:
            print(line)
    return 0


def _of_folder(
    asked: argparse.Namespace, words: list[str], wanted: Wanted, regions: list[str]
) -> list[str]:
    """Upload what a mount shows, or what `bundlefs bundle` wrote."""
    if asked.without_fuse:
        words = ["--without-fuse", *words]
    if words:
        raise UsageError(f"{words[0]}: that is for an image, and {asked.source} is a folder")
    if len(regions) > 1:
        raise UsageError(f"--region {regions[1]}: give one, of the bucket and the AMI")
    tool = tool_for(wanted)
    if wanted.dry_run:
        return rehearse(tool, asked.source, wanted)
    feed = feed_of(asked.source)
    with workplace() as work:
        return upload(tool, nullcontext(feed), work, wanted)


def _of_image(asked: argparse.Namespace, words: list[str], wanted: Wanted) -> list[str]:
    """Upload the bundle of an image: mounted if that is possible, else made part by part."""
    image = Path(os.path.abspath(asked.source))  # noqa: PTH100  # links stay: a state has its path
    mode = asked.source.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError(f"{image} is no image; give a file or a block device")
    refused = "as asked for" if asked.without_fuse else fuse_refused()
    tool = tool_for(wanted)
    if wanted.dry_run:
        return rehearse_image(tool, image, words, wanted)
    with workplace() as work:
        if refused is None:
            return upload(tool, mounted(image, words, work), work, wanted)
        if not asked.without_fuse:
            tell(f"{PROGRAM}: nothing is mounted: {refused}")
        return upload(tool, _spooled(image, words, asked.dest, work), work, wanted)


@contextmanager
def _spooled(image: Path, words: list[str], dest: Place, work: Path) -> Iterator[Feed]:
    from bundlefs.cli.commands.bundle import for_upload  # noqa: PLC0415  # it loads the engine
    from bundlefs.upload.spool import spooled  # noqa: PLC0415  # same

    rule_out_core_dumps()
    to = f"{dest.bucket}/{dest.prefix}"
    arguments = parser(("bundle",)).parse_args(["bundle", str(image), to, *words])
    with (
        for_upload(arguments) as (made, tap, manifests),
        spooled(made, tap, manifests, work) as feed,
    ):
        yield feed


def upload_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not passed on."""
    own = Parser(
        prog=PROGRAM,
        description=_ABOUT,
        epilog=f"To enable ACLs: {ENABLE_ACLS.format(bucket='BUCKET')}".replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = own.add_argument
    add("source", type=Path, metavar="SOURCE")
    add("dest", type=_place, metavar="DEST")
    add("--acl", default="aws-exec-read", help="(default: %(default)s)")
    add(
        "--region",
        action="append",
        default=[],
        help="of the bucket and the AMI; chooses the manifest, which an image gets for it"
        " (repeatable for an image)",
    )
    add("--register", metavar="NAME", help="register the AMI, and print its ID")
    add("--root-device-name", default="/dev/xvda", help="(default: %(default)s)")
    add("--dry-run", action="store_true", help="check, and show what would be run")
    add("--no-check", action="store_true", help="do not look at the bucket's settings")
    add("--s5cmd", action="store_true", help="let s5cmd send to s3://, in place of aws-cli")
    add_quiet(add)
    add(
        "--without-fuse",
        action="store_true",
        help="mount nothing; that is so by itself where nothing can be mounted",
    )
    return own


def _place(text: str) -> Place:
    try:
        return place(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
