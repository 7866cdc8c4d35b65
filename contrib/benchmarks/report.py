"""Tables for a person, JSON for a program, and the bars with what was reached."""

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Cost

_MB = 1e6


def _machine() -> str:
    """Name the processors, the memory, the kernel and the Python."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    # Not every architecture's kernel names the model.
    [model] = re.findall(r"^model name\s*: (.*)$", facts, re.MULTILINE)[:1] or [platform.machine()]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return (
        f"{len(os.sched_getaffinity(0))} processors ({model}), {memory} GiB of memory,"
        f" Linux {platform.release()}, Python {platform.python_version()}"
    )


class Report:
    """Prints each result as it comes and keeps it for the JSON file."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "processors": len(os.sched_getaffinity(0)),
            "machine": _machine(),
            "tables": {},
            "bars": [],
        }

    def head(self) -> None:
        """Print what the figures were measured on: they say little without it."""
        print(f"Measured on {self._found['machine']}.")
        sys.stdout.flush()

    def costs(self, title: str, found: dict[str, Cost], base: str | None) -> None:
        """Print a table of costs; with `base`, how many times faster than that row."""
        self._found["tables"][title] = {name: asdict(cost) for name, cost in found.items()}
        print(f"\n### {title}\n")
        ratio = f" | against {base}" if base else ""
        print(f"| | wall s | all runs, s | CPU s | peak MiB | bundle MB{ratio} |")
        print("|---|---|---|---|---|---" + ("|---|" if base else "|"))
        for name, cost in found.items():
            runs = f"{cost.least:.2f} to {cost.most:.2f}" if cost.most else ""
            row = f"| {name} | {cost.wall:.2f} | {runs} | {cost.cpu:.2f}"
            row += f" | {cost.peak / (1 << 20):.0f}"
            row += f" | {cost.size / _MB:.2f}" if cost.size else " | "
            print(row + (f" | {found[base].wall / cost.wall:.1f} x |" if base else " |"))
        sys.stdout.flush()

    def rows(self, title: str, columns: tuple[str, ...], found: Sequence[tuple[str, ...]]) -> None:
        """Print a table of texts."""
        self._found["tables"][title] = [dict(zip(columns, row, strict=True)) for row in found]
        print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in found:
            print(f"| {' | '.join(row)} |")
        sys.stdout.flush()

    def figures(self, title: str, found: dict[str, str]) -> None:
        """Print named figures."""
        self._found["tables"][title] = found
        print(f"\n### {title}\n\n| | |\n|---|---|")
        for name, figure in found.items():
            print(f"| {name} | {figure} |")
        sys.stdout.flush()

    def bar(
        self,
        what: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Keep a bar and whether it held."""
        held = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bar = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
        self._found["bars"].append({"what": what, "value": value, "bar": bar, "held": held})

    def finish(self, path: Path | None) -> bool:
        """Print the bars, write the JSON; tell whether all bars held."""
        print("\n### Bars\n\n| | measured | bar | held |\n|---|---|---|---|")
        for bar in self._found["bars"]:
            held = "yes" if bar["held"] else "NO"
            print(f"| {bar['what']} | {bar['value']:.3g} | {bar['bar']} | {held} |")
        if path:
            path.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
        return all(bar["held"] for bar in self._found["bars"])
