"""The benchmark must not rot: all of it runs, in small, and measures what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.tools import clean_env

BENCHMARKS = Path(__file__).parents[2] / "contrib" / "benchmarks"
SCENARIO_BARS = 15


def test_the_benchmark_runs_in_small(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    folder = Path(sys.executable).parent
    env = clean_env(tmp_path, TMPDIR=str(tmp_path))
    env["PATH"] = f"{folder}:{env['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS), "--quick", "--json", str(report)],
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
