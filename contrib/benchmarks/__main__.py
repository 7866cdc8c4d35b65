"""Runs the scenarios and prints the report; see `contrib/bench`."""

import argparse
import sys
import tempfile
from pathlib import Path

from images import MIB, real
from report import Report
from scenarios import SCENARIOS, Bench

_SIZE, _QUICK_SIZE = 256 * MIB, 8 * MIB
_RUNS = 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="contrib/bench", description=__doc__)
    parser.add_argument("--image", type=Path, help="measure on this image, not on one of our own")
    parser.add_argument("--quick", action="store_true", help="small images, one run: a trial")
    parser.add_argument("--runs", type=int, help="of which the median counts (default: 3)")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="repeatable")
    parser.add_argument("--json", type=Path, help="write all figures here as well")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a bar did not hold")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and tell whether all bars held."""
    arguments = _arguments()
    report = Report()
    report.head()
    with tempfile.TemporaryDirectory(prefix="bundlefs-bench-") as name:
        folder = Path(name)
        size = _QUICK_SIZE if arguments.quick else _SIZE
        image = arguments.image or real(folder / "image.raw", size)
        runs = arguments.runs or (1 if arguments.quick else _RUNS)
        bench = Bench(folder, image.absolute(), runs, arguments.quick)
        for scenario in arguments.only or SCENARIOS:
            SCENARIOS[scenario](bench, report)
    held = report.finish(arguments.json)
    return 1 if arguments.strict and not held else 0


if __name__ == "__main__":
    sys.exit(main())
