"""`mount.bundlefs`: what mount(8) starts for the type `bundlefs` [mount(8), external helpers].

`mount -t fuse.bundlefs` needs it not: mount.fuse3(8) calls `bundlefs IMAGE DIR -o ...`.
"""

import argparse
import sys
from collections.abc import Sequence

from bundlefs import cli

_USAGE, _FAILED = 1, 32
"""Exit codes of mount(8)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Mount as mount(8) asks, and give its exit codes."""
    arguments = _parser().parse_args(argv)
    # mount(8) gives no -o at all where there are no options.
    words = [arguments.source, arguments.mountpoint, "-o", ",".join(["rw", *arguments.o])]
    words += ["--verbose"] * arguments.verbose
    try:
        code = cli.main(words, sloppy=arguments.sloppy, fake=arguments.fake)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 2
    return {0: 0, 2: _USAGE}.get(code, _FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mount.bundlefs", allow_abbrev=False)
    add = parser.add_argument
    add("source", metavar="IMAGE")
    add("mountpoint", metavar="DIR")
    add("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    add("-f", dest="fake", action="store_true", help="check the options, mount nothing")
    add("-n", action="store_true", help="as if it was not there")
    add("-v", dest="verbose", action="store_true", help="log more")
    add("-N", metavar="NAMESPACE", help="as if it was not there")
    add("-t", metavar="TYPE", help="as if it was not there")
    add("-o", metavar="OPTION[,...]", action="append", default=[])
    return parser


if __name__ == "__main__":
    sys.exit(main())
