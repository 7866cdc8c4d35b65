"""Runs the scenarios and prints the report; see `contrib/bench`."""

import argparse
import sys
import tempfile
from pathlib import Path

from images import MIB, real
from report import Report
from scenarios import SCENARIOS, Bench
from steps import scenario, step

_SIZE, _QUICK_SIZE = 256 * MIB, 8 * MIB
_GIB, _QUICK_GIB = 4, 24 / 1024
_RUNS = 3
_ON_REQUEST = ("real-size",)
"""Scenarios that take as long as all others together."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="contrib/bench", description=__doc__)
    parser.add_argument("--image", type=Path, help="measure on this image, not on one of our own")
    parser.add_argument("--quick", action="store_true", help="small images, one run: a trial")
    parser.add_argument("--runs", type=int, help="of which the median counts (default: 3)")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(SCENARIOS),
        help=f"repeatable (default: all but {', '.join(_ON_REQUEST)})",
    )
    parser.add_argument("--all", action="store_true", help="all, and that takes twice as long")
    parser.add_argument("--gib", type=float, help="of files in real-size (default: 4)")
    parser.add_argument("--json", type=Path, help="write all figures here as well")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a bar did not hold")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> list[str]:
    if arguments.all:
        return list(SCENARIOS)
    return arguments.only or [name for name in SCENARIOS if name not in _ON_REQUEST]


def main() -> int:
    """Measure, print, and tell whether all bars held."""
    arguments = _arguments()
    report = Report()
    report.head()
    with tempfile.TemporaryDirectory(prefix="bundlefs-bench-") as temporary:
        folder = Path(temporary)
        size = _QUICK_SIZE if arguments.quick else _SIZE
        step("an ext4 of this machine's files")
        image = arguments.image or real(folder / "image.raw", size)
        runs = arguments.runs or (1 if arguments.quick else _RUNS)
        data = int((arguments.gib or (_QUICK_GIB if arguments.quick else _GIB)) * 1024) * MIB
        bench = Bench(folder, image.absolute(), runs, arguments.quick, data)
        names = _chosen(arguments)
        for number, name in enumerate(names, 1):
            with scenario(name, number, len(names)):
                SCENARIOS[name](bench, report)
    held = report.finish(arguments.json)
    return 1 if arguments.strict and not held else 0


if __name__ == "__main__":
    sys.exit(main())
