"""`bundlefs status`: where a mount stands, for a person or as JSON."""

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundlefs.cli.common import Subparsers, human
from bundlefs.mountpoint import read_status

_PHASES = {
    "idle": "nothing to do; what is asked for next is made then",
    "indexing": "the index pass runs",
    "complete": "all parts are known",
    "failed": "failed, and stays so; nothing more is served",
}


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "status",
        help="show where a mount stands",
        description="Show where the mount at MOUNTPOINT stands. Exit code 1 if it has failed.",
        allow_abbrev=False,
    )
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    parser.add_argument("--json", action="store_true", help="as JSON, all fields")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    status = read_status(arguments.mountpoint)
    print(json.dumps(status, indent=1) if arguments.json else describe(status))
    return 1 if status["phase"] == "failed" else 0


def describe(status: dict[str, Any]) -> str:
    """Give the status in a few lines."""
    lines = [f"image     {status['image']}, {human(status['image_size'])}"]
    lines += _opened(status) if "access" in status else _bundled(status)
    if status["phase"] == "indexing":
        lines.append(bar(status))
    if status["error"]:
        lines.append(f"error     {status['error']}")
    return "\n".join(lines)


def _bundled(status: dict[str, Any]) -> list[str]:
    return [
        f"phase     {status['phase']}: {_PHASES[status['phase']]}",
        f"bundle    {status['parts_made']} parts made, {human(status['sealed_bytes'])} sealed",
        f"read      {human(status['image_bytes_read'])} of the image",
        f"mounted   for {status['seconds']:.0f} s, by process {status['pid']}",
    ]


def _opened(status: dict[str, Any]) -> list[str]:
    failed = "a read failed; the next one tries again" if status["error"] else "no read has failed"
    return [
        f"phase     {status['phase']}: {failed}",
        f"bundle    {human(status['sealed_bytes'])}, opened {status['access']}",
        f"mounted   by process {status['pid']}",
    ]


def bar(status: dict[str, Any]) -> str:
    """Draw how far the index pass is."""
    return tqdm.format_meter(
        status["tar_bytes_done"],
        status["tar_size"],
        status["pass_seconds"],
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        ncols=78,
    )
