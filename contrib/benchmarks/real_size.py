"""A whole image of a usual size into a bucket, with default options, by each tool.

What is measured: the pass alone (a listing of a fresh mount); the wire alone (the same tool, from
a folder that has the bundle); and both at a time, from a fresh mount. All reach the same server,
at full speed and over a wire of 50 MB/s, which is what a good line to S3 gives.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from images import MIB
from measure import Cost
from mounts import ACCOUNT, mounted, status
from report import Report
from sinks import IMAGE_TOOLS, S3, TOOLS
from steps import step

WIRE = 50e6
"""Bytes a second."""
_LISTING = ("rclone copy", "aws s3 sync")
_SLACK = 1.15
_TWICE = 1.02
_COLUMNS = ("", "s", "wire alone, s", "of the longer of the two", "CPU s", "blocks made of needed")


@dataclass(slots=True)
class Measured:
    """One upload of a new bundle; `wire` is the wire alone, for the same tool and speed."""

    tool: str
    speed: float | None
    wire: float
    cost: Cost
    blocks: float | None
    """Blocks compressed, for each that is needed; None where nobody could ask the mount."""


@dataclass(slots=True)
class RealSize:
    """The ground: an image with so many bytes of files, a folder for its bundle, and what comes."""

    image: Path
    data: int
    bundle: Path
    mountpoint: Path
    server: Path
    found: list[Measured] = field(default_factory=list)

    def make_bundle(self) -> None:
        """Write the bundle, which is what the wire alone is measured with."""
        step("  bundlefs bundle, to have the parts in a folder")
        command = [sys.executable, "-m", "bundlefs", "bundle", "--no-size-limit", "--state", "none"]
        command += ["--quiet", "--account", ACCOUNT, str(self.image), str(self.bundle)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    def pass_alone(self) -> Cost:
        """Measure a listing of a fresh mount."""
        step("  the pass alone: ls")
        with mounted(self.image, self.mountpoint) as daemon:
            start = time.perf_counter()
            names = list(self.mountpoint.iterdir())
            wall = time.perf_counter() - start
            size = sum(path.stat().st_size for path in names if ".part." in path.name)
            return Cost(wall, daemon.cpu(), daemon.peak(), size)

    def upload_all(self, speed: float | None) -> None:
        """Measure each tool at one speed."""
        wires: list[float] = []
        for tool in TOOLS:
            with S3(self.server, speed) as s3:
                step(f"  {_at(speed)}: {tool}, the wire alone")
                wire = s3.copy(self.bundle, tool).wall
                step(f"  {_at(speed)}: {'ls, then ' * (tool in _LISTING)}{tool}, from a mount")
                self.found.append(self._uploaded(s3, tool, speed, wire))
                wires.append(wire)
        # They send as `bundlefs-upload` does, which the last two have measured.
        for tool, wire in zip(IMAGE_TOOLS, wires[-2:], strict=True):
            step(f"  {_at(speed)}: {tool}")
            with S3(self.server, speed) as s3:
                self.found.append(Measured(tool, speed, wire, s3.copy(self.image, tool), None))

    def _uploaded(self, s3: S3, tool: str, speed: float | None, wire: float) -> Measured:
        with mounted(self.image, self.mountpoint) as daemon:
            start = time.perf_counter()
            if tool in _LISTING:
                list(self.mountpoint.iterdir())
            copied = s3.copy(self.mountpoint, tool)
            wall = time.perf_counter() - start
            now = status(self.mountpoint)
            cost = Cost(wall, copied.cpu + daemon.cpu(), daemon.peak(), copied.size)
        if now["phase"] != "complete" or copied.size != now["sealed_bytes"]:
            raise SystemExit(f"{tool}: {copied.size} of {now['sealed_bytes']} bytes arrived: {now}")
        needed = -(-now["tar_size"] // MIB)
        return Measured(tool, speed, wire, cost, now["blocks_compressed"] / needed)


def _at(speed: float | None) -> str:
    return f"{speed / 1e6:.0f} MB/s" if speed else "full speed"


def told(ground: RealSize, alone: Cost, report: Report) -> None:
    """Add the table and the bars."""
    rows = [("the pass alone (ls)", f"{alone.wall:.1f}", "", "", f"{alone.cpu:.1f}", "")]
    for each in ground.found:
        longer = each.cost.wall / max(alone.wall, each.wire)
        rows.append(
            (
                f"{_at(each.speed)}: {'ls, ' * (each.tool in _LISTING)}{each.tool}",
                f"{each.cost.wall:.1f}",
                f"{each.wire:.1f}",
                f"{longer:.2f}",
                "" if each.blocks is None else f"{each.cost.cpu:.1f}",
                "" if each.blocks is None else f"{each.blocks:.3f}",
            )
        )
        what = f"{each.tool}, {_at(each.speed)}"
        if each.blocks is not None:
            report.bar(f"{what}: blocks compressed of blocks needed", each.blocks, at_most=_TWICE)
        if each.speed and each.tool not in _LISTING:
            report.bar(f"{what}: time of max(pass, wire)", longer, at_most=_SLACK)
    size = f"{ground.data / (1 << 30):.2f} GiB of files"
    report.rows(f"{size}, {alone.size / 1e6:.0f} MB of bundle, into a bucket", _COLUMNS, rows)
