"""The benchmark must not rot: all of it runs, in small, and measures what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.tools import clean_env

BENCHMARKS = Path(__file__).parents[2] / "contrib" / "benchmarks"
SCENARIO_BARS = 20


def test_the_benchmark_runs_in_small(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    folder = Path(sys.executable).parent
    env = clean_env(tmp_path, TMPDIR=str(tmp_path))
    env["PATH"] = f"{folder}:{env['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS), "--quick", "--all", "--json", str(report)],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert done.stdout.startswith(f"Measured on {found['machine']}.\n")
    parts = r"\d+ processors \(.+\), \d+ GiB of memory, Linux .+, Python 3\..+"
    assert re.fullmatch(parts, found["machine"])
    assert len(found["bars"]) >= SCENARIO_BARS
    first_pass = next(table for title, table in found["tables"].items() if "First pass" in title)
    sizes = [first_pass[f"bundlefs -{level}"]["size"] for level in range(10)]
    assert sizes == sorted(sizes, reverse=True), "a higher level is smaller"
    assert all(cost["wall"] > 0 and cost["peak"] > 0 for cost in first_pass.values())
    assert any("Start-up" in title for title in found["tables"])
    uploads = next(table for title, table in found["tables"].items() if "into a bucket" in title)
    blocks = [row["blocks made of needed"] for row in uploads]
    # Nobody can ask the mount of those that take an image.
    assert blocks == ["", *["1.000"] * 4, "", ""], "each was made once, and all were"
    told = re.findall(
        r"^\[ *\d+:\d\d\] scenario (\d+) of (\d+): ([a-z-]+)$", done.stderr, re.MULTILINE
    )
    assert [int(number) for number, _, _ in told] == list(range(1, int(told[0][1]) + 1))
    assert "  run 1 of 1: bundlefs -6\n" in done.stderr
