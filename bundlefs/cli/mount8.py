"""`mount.bundlefs`: what mount(8) starts for the type `bundlefs` [mount(8), EXTERNAL HELPERS].

`mount -t fuse.bundlefs` does not need it: mount.fuse3(8) calls `bundlefs IMAGE DIR -o ...`. But
mount.fuse3 drops the flags of mount(8), so that `mount -f`, which is to mount nothing, mounts. A
link to this program, /sbin/mount.fuse.bundlefs, is taken in its place and heeds them.
"""

import argparse
import importlib
from collections.abc import Sequence

from bundlefs import cli
from bundlefs.base import signals
from bundlefs.base.errors import UsageError
from bundlefs.base.threads import leave
from bundlefs.cli import streams
from bundlefs.cli.common import Parser, reported
from bundlefs.cli.hardening import rule_out_core_dumps
from bundlefs.cli.mountopts import meant_by

_USAGE, _FAILED = 1, 32
"""Exit codes of mount(8)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Mount as mount(8) asks, and return its exit codes."""
    streams.prepare()
    try:
        code = reported(lambda: _run(_parser().parse_args(argv)))
    except SystemExit as ended:
        # argparse has said what is wrong, or shown its help.
        code = ended.code if isinstance(ended.code, int) else UsageError.exit_code
    code = {0: 0, UsageError.exit_code: _USAGE}.get(code, _FAILED)
    if signals.is_program():
        leave(code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mount.bundlefs",
        description="Mount as mount(8) asks for the type bundlefs; use that, or `bundlefs mount`.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", metavar="IMAGE", help="or a manifest, with -o open")
    add("mountpoint", metavar="DIR")
    add("-s", dest="sloppy", action="store_true", help="only warn of unknown options")
    add("-f", dest="fake", action="store_true", help="check everything, mount nothing")
    add("-n", action="store_true", help="no effect: there is no mtab to write")
    add("-v", dest="verbose", action="store_true", help="log more")
    add("-N", metavar="NAMESPACE", help="no effect: mount(8) is in it already")
    add("-t", metavar="TYPE", help="no effect")
    add("-o", metavar="OPTION[,...]", action="append", default=[], help="as of `bundlefs mount`")
    return parser


def _run(asked: argparse.Namespace) -> int:
    options = [f"-o{text}" for text in asked.o]
    command = meant_by(options)
    flags = [f"--{name}" for name in ("sloppy", "verbose") if getattr(asked, name)]
    words = [command, *flags, *options, asked.source, asked.mountpoint]
    arguments = cli.parser((command,)).parse_args(words)
    if asked.fake:
        rule_out_core_dumps()
        importlib.import_module(f"bundlefs.cli.commands.{command}").check(arguments)
        return 0
    return cli.run(arguments)
