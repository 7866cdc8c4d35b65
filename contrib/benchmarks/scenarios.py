"""What is measured, one function for each question; each adds rows and figures to a report."""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import others
from back import Back
from images import MIB, OVERHEAD, dense, filled, sparse
from measure import Cost
from mounts import first_pass, from_memory, mounted, read_all, read_at_random
from real_size import WIRE, RealSize, told
from report import Report
from sinks import S3
from startup import commands
from steps import runs, step

LEVELS = range(10)
_STARTS = 15


@dataclass(frozen=True, slots=True)
class Bench:
    """The ground: a folder, the base image, how often, how large, and how much at real size."""

    folder: Path
    image: Path
    runs: int
    quick: bool
    data: int

    @property
    def mountpoint(self) -> Path:
        """Where everything is mounted."""
        return self.folder / "mnt"

    def median(self, name: str, measure: Callable[[], Cost]) -> Cost:
        """Measure as often as asked for."""
        return runs(self.runs, {name: measure})[name]


def startup(bench: Bench, report: Report) -> None:
    """How soon a mount is ready, which no other figure here has in it, and commands answer."""
    measures = commands(bench.image, bench.mountpoint, bench.folder / "startup")
    found = runs(2 if bench.quick else _STARTS, measures)
    report.figures(
        f"Start-up, median of {2 if bench.quick else _STARTS} (from, to)",
        {
            name: f"{cost.wall:.3f} s ({cost.least:.3f} to {cost.most:.3f})"
            for name, cost in found.items()
        },
    )


def levels(bench: Bench, report: Report) -> None:
    """First pass at each level against ec2-bundle-image and euca2ools, in turn, run by run."""
    scratch = bench.folder / "others"
    contenders: dict[str, Callable[[], Cost]] = {
        "ec2-bundle-image": lambda: others.bundle(others.EC2_BUNDLE_IMAGE, bench.image, scratch),
        "euca2ools (pigz)": lambda: others.bundle(others.EUCA2OOLS, bench.image, scratch),
    }
    for level in LEVELS:
        contenders[f"bundlefs -{level}"] = _pass_at(bench, level)
    found = runs(bench.runs, contenders)
    title = f"First pass over {_size(bench.image)}, without start-up"
    report.costs(title, found, "ec2-bundle-image")
    slow, pigz = found["ec2-bundle-image"], found["euca2ools (pigz)"]
    six, one = found["bundlefs -6"], found["bundlefs -1"]
    report.bar("level 6 against ec2-bundle-image, times faster", slow.wall / six.wall, at_least=15)
    report.bar("level 6 against it, bundle size", six.size / slow.size, at_most=1)
    report.bar("level 6 against euca2ools, times faster", pigz.wall / six.wall, at_least=2.8)
    report.bar("level 6 against it, bundle size", six.size / pigz.size, at_most=1)
    report.bar("level 1 against level 6, times faster", six.wall / one.wall, at_least=3)


def _pass_at(bench: Bench, level: int) -> Callable[[], Cost]:
    # Level 0 knows all sizes without a pass, so its pass is asked for.
    options = ["--level", str(level), "--cache-size", "0"]
    return lambda: first_pass(bench.image, bench.mountpoint, *options)


def ceiling(bench: Bench, report: Report) -> None:
    """The pipeline against the bare codec on all cores."""
    script = str(Path(__file__).with_name("ceiling.py"))
    asked = [str(level) for level in (1, 2, 3, 6)]
    rows: dict[int, list[dict[str, float]]] = {}
    for run in range(bench.runs):
        step(f"  run {run + 1} of {bench.runs}: levels {', '.join(asked)}")
        command = [sys.executable, script, str(bench.image), *asked]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        for row in json.loads(output):
            rows.setdefault(row["level"], []).append(row)
    found = {level: _ratio(list_, "bare", "pipeline") for level, list_ in rows.items()}
    report.figures(
        "Pipeline speed as part of the bare codec's (with its proof) on all cores",
        {f"level {level}": f"{ratio:.2f}" for level, ratio in found.items()},
    )
    report.bar("pipeline against bare codec, level 6", found[6], at_least=0.85)
    report.bar("pipeline against bare codec, level 1", found[1], at_least=0.70)
    bundling = _ratio(rows[6], "pipeline", "bundling")
    report.bar("bundle to a folder against the index pass, level 6", bundling, at_least=0.95)


def _ratio(rows: list[dict[str, float]], above: str, below: str) -> float:
    return statistics.median(row[f"{above}_seconds"] / row[f"{below}_seconds"] for row in rows)


def warm(bench: Bench, report: Report) -> None:
    """Reads of blocks that are in memory, against pyfuse3 serving the same bytes from memory."""
    copy = bench.folder / "copy"
    cache = f"{2 * bench.image.stat().st_size}"
    ours, theirs = [], []
    for run in range(bench.runs):
        step(f"  run {run + 1} of {bench.runs}")
        with mounted(bench.image, bench.mountpoint, "--cache-size", cache, "--level", "1"):
            shutil.copytree(bench.mountpoint, copy)
            ours += [_speed(*read_all(bench.mountpoint)) for _ in range(3)]
        with from_memory(copy, bench.mountpoint):
            theirs += [_speed(*read_all(bench.mountpoint)) for _ in range(3)]
        shutil.rmtree(copy)
    mine, bare = statistics.median(ours), statistics.median(theirs)
    figures = {"bundlefs": f"{mine:.0f} MB/s", "pyfuse3 from memory": f"{bare:.0f} MB/s"}
    report.figures("Warm reads through the mount", figures)
    report.bar("warm reads against pyfuse3 from memory", mine / bare, at_least=0.70)


def _speed(seconds: float, size: int) -> float:
    return size / seconds / 1e6


def end_to_end(bench: Bench, report: Report) -> None:
    """Mount and rclone to S3, against bundling to a folder and rclone from there."""
    with S3(bench.folder / "s3") as s3:
        scratch = bench.folder / "others"
        contenders: dict[str, Callable[[], Cost]] = {
            "ec2-bundle-image": lambda: s3.upload_after(
                others.EC2_BUNDLE_IMAGE, bench.image, scratch
            ),
            "euca2ools (pigz)": lambda: s3.upload_after(others.EUCA2OOLS, bench.image, scratch),
            "bundlefs, mounted": lambda: s3.upload_mount(bench.image, bench.mountpoint),
        }
        found = runs(bench.runs, contenders)
    report.costs("Until it is in the bucket (rclone to S3 on loopback)", found, "ec2-bundle-image")


def growth(bench: Bench, report: Report) -> None:
    """How cost grows with a dense image, and with the size of a sparse one."""
    found = {}
    base = bench.image.stat().st_size
    target = bench.folder / "grown"
    for times in (1, 2) if bench.quick else (1, 4, 16):
        dense(bench.image, target, times)
        found[f"dense, {_size(target)}"] = _pass(bench, target)
    data = min(100 * MIB, base // 2 // (400 << 10) * (400 << 10))
    with bench.image.open("rb") as reader:
        target.write_bytes(reader.read(data))
    found[f"dense, {_size(target)}"] = reference = _pass(bench, target)
    last = reference
    for size in (1 << 30, 1 << 35, 1 << 40):
        sparse(bench.image, target, data, size)
        found[f"sparse, {_size(target)}, same data"] = last = _pass(bench, target)
    target.unlink()
    report.costs("How cost grows (level 6)", found, None)
    report.bar("1 TiB sparse against its data dense, time", last.wall / reference.wall, at_most=1.5)


def _pass(bench: Bench, image: Path) -> Cost:
    measure = partial(first_pass, image, bench.mountpoint, "--cache-size", "0")
    return bench.median(_size(image), measure)


def memory(bench: Bench, report: Report) -> None:
    """Peak memory beyond --cache-size must not grow with the image."""
    cache = 64 * MIB
    base = bench.image.stat().st_size
    sizes = (base, 2 * base) if bench.quick else (1 << 30, 9 << 30)
    found, target = {}, bench.folder / "grown"
    for size in sizes:
        dense(bench.image, target, size // base)
        step(f"  {_size(target)}")
        options = ["--level", "1", "--cache-size", str(cache)]
        found[_size(target)] = first_pass(target, bench.mountpoint, *options)
    target.unlink()
    report.costs(f"Peak memory, --cache-size {cache // MIB}M, level 1", found, None)
    small, large = (cost.peak for cost in found.values())
    report.bar("peak memory beyond --cache-size, MiB", (large - cache) / MIB, at_most=250)
    report.bar("peak memory, the larger image against the smaller", large / small, at_most=1.1)


def readers(bench: Bench, report: Report) -> None:
    """Peak memory beyond --cache-size with 64 readers at random, also with far too many threads."""
    cache, found = 64 * MIB, {}
    for jobs in ("2", "32"):
        step(f"  --jobs {jobs}")
        options = ["--level", "1", "--cache-size", str(cache), "--jobs", jobs]
        with mounted(bench.image, bench.mountpoint, *options) as daemon:
            read_at_random(bench.mountpoint, 64, 2 if bench.quick else 20)
            found[f"--jobs {jobs}"] = daemon.peak()
    report.figures(
        f"Peak memory with 64 random readers, --cache-size {cache // MIB}M, level 1",
        {name: f"{peak / MIB:.0f} MiB" for name, peak in found.items()},
    )
    worst = max(found.values())
    report.bar("64 readers, beyond --cache-size, MiB", (worst - cache) / MIB, at_most=120)


def way_back(bench: Bench, report: Report) -> None:
    """Unbundle against stock tools; random reads of a bundle that nobody has opened before."""
    with Back(bench.folder / "back", bench.image, 1 if bench.quick else 4) as back:
        contenders = {"cat, openssl, gunzip, tar": back.stock, "bundlefs unbundle": back.unbundle}
        found = runs(bench.runs, contenders)
        step("  open")
        first, later = back.opened()
        title = f"Unbundling {_size(back.image)}"
    report.costs(title, found, "cat, openssl, gunzip, tar")
    once, here = (cost.wall for cost in found.values())
    report.figures(
        "Opening it as a disk",
        {
            "first 4 KiB, at the end": f"{first:.2f} s",
            "later, median of 200 at random": f"{later * 1000:.1f} ms",
        },
    )
    report.bar("unbundle against stock tools, times faster", once / here, at_least=2)
    report.bar("open: first read at the end against one stock pass", first / once, at_most=1)
    report.bar("open: later random 4 KiB reads, median ms", later * 1000, at_most=50)


def real_size(bench: Bench, report: Report) -> None:
    """An image of a usual size into a bucket, made and sent at the same time, by each tool."""
    folder = bench.folder / "real-size"
    folder.mkdir()
    step(f"  an ext4 with {bench.data / MIB:.0f} MiB of files")
    image = filled(folder / "image.raw", bench.data * 9 // 8 + OVERHEAD, bench.data)
    ground = RealSize(image, bench.data, folder / "bundle", bench.mountpoint, folder / "s3")
    alone = ground.pass_alone()
    ground.make_bundle()
    for speed in (WIRE,) if bench.quick else (WIRE, None):
        ground.upload_all(speed)
    shutil.rmtree(folder)
    told(ground, alone, report)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size / MIB:g} MiB"


SCENARIOS: dict[str, Callable[[Bench, Report], None]] = {
    "startup": startup,
    "levels": levels,
    "ceiling": ceiling,
    "warm": warm,
    "end-to-end": end_to_end,
    "growth": growth,
    "memory": memory,
    "readers": readers,
    "way-back": way_back,
    "real-size": real_size,
}
