"""`bundlefs status`: where a mount stands, for a person or as JSON, once or until it is done."""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundlefs.base.errors import MountError, UsageError
from bundlefs.base.escapes import escaped
from bundlefs.base.progress import percent
from bundlefs.cli.common import Subparsers, human, positive
from bundlefs.cli.listing import list_mounts
from bundlefs.cli.misuse import ask_for_mountpoint, refuse_source
from bundlefs.cli.options import typed
from bundlefs.cli.streams import say
from bundlefs.fuse.mountpoint import read_status

_PHASES = {
    "unopened": "nobody has looked into it yet",
    "opening": "the image is being opened",
    "unpacking": "a compressed file is gone through once",
    "idle": "nothing to do; what is asked for next is made then",
    "indexing": "the index pass runs",
    "complete": "all parts are known",
    "failed": "failed, and stays so; nothing more is served",
}


@dataclass(frozen=True, slots=True)
class _Options:
    mountpoint: Path | None
    json: bool
    watch: bool
    interval: int | None


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "status",
        help="show where a mount stands, or list all mounts",
        description="Show where the mount at MOUNTPOINT stands, or of a folder of images the one"
        " at MOUNTPOINT/NAME. Without MOUNTPOINT, list all mounts of bundlefs. Exit code 1 if one"
        " of them has failed, or its process does not answer.",
        allow_abbrev=False,
    )
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT", nargs="?")
    parser.add_argument("--json", action="store_true", help="print JSON, with all fields")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it again and again, until the bundle is complete or the mount ends; of a folder"
        " of images, until each that was looked into is complete or has failed (exit code 1 then)",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=positive,
        help="between two looks of --watch (default: 1)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the status."""
    options = typed(_Options, arguments)
    mountpoint = options.mountpoint
    if mountpoint is not None:
        refuse_source("status", mountpoint)
    if options.interval is not None and not options.watch:
        raise UsageError("--interval is for --watch; give both or none")
    if mountpoint is None:
        # There is one to follow, or none.
        watch = options.watch
        return ask_for_mountpoint("status") if watch else list_mounts(as_json=options.json)
    status = read_status(mountpoint)
    if options.watch:
        screen = _Screen(as_json=options.json)
        return _watch(mountpoint, status, screen, options.interval or 1)
    print(json.dumps(status, indent=1) if options.json else describe(status))
    return 1 if status["phase"] == "failed" else 0


def _watch(mountpoint: Path, status: dict[str, Any], screen: "_Screen", pause: float) -> int:
    """Show each status that differs: in place on a terminal, else one after the other."""
    while True:
        screen.show(status)
        phases = _phases(status)
        if phases and phases <= {"complete", "failed"}:
            return 1 if "failed" in phases else 0
        time.sleep(pause)
        try:
            status = read_status(mountpoint)
        except MountError:
            say(f"the mount at {mountpoint} has ended")
            return 0


def _phases(status: dict[str, Any]) -> set[str]:
    """Return the phases of what somebody has asked for: one, or those of a folder's images."""
    return {one["phase"] for one in status.get("images", [status])} - {"unopened"}


class _Screen:
    """Shows one status after the other, and knows the last; time alone is no change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._in_place = sys.stdout.isatty() and not as_json
        self._last: dict[str, Any] = {}
        self._lines = 0

    def show(self, status: dict[str, Any]) -> None:
        """Show a status, unless it is the last one in all but time."""
        lasting = {name: value for name, value in status.items() if not name.endswith("seconds")}
        lasting["silent"] = bool(status.get("storage_silent_seconds"))
        if lasting == self._last and not self._in_place:
            return
        self._last = lasting
        text = json.dumps(status) if self._as_json else describe(status)
        if self._in_place:
            # Up to where it began, and clear from there [ECMA-48].
            text = (f"\x1b[{self._lines}A\x1b[J" if self._lines else "") + text
            self._lines = len(describe(status).splitlines())
        print(text, flush=True)


def describe(status: dict[str, Any]) -> str:
    """Return the status in a few lines."""
    size = f", {human(status['image_size'])}" if "image_size" in status else ""
    lines = [f"image     {status['image']}{size}"]
    if "access" in status:
        lines += _opened(status)
    elif "image_size" in status:
        lines += _bundled(status)
    else:
        lines.append(f"phase     {status['phase']}: {_PHASES[status['phase']]}")
        lines += _waiting(status)
    lines += [_line(image) for image in status.get("images", ())]
    if percent(status) is not None:
        from bundlefs.cli.bars import bar  # noqa: PLC0415  # most looks find no pass under way

        lines.append(bar(status))
    if status["error"]:
        lines.append(f"error     {status['error']}")
    return "\n".join(map(escaped, lines))


def _line(image: dict[str, Any]) -> str:
    """Return the line for one image among many."""
    text = f"  {image['name']}: {image['phase']}"
    if (done := percent(image)) is not None:
        text += f", {done} %"
    if silent := image.get("storage_silent_seconds"):
        text += f", {_silence(silent)}"
    return f"{text}: {image['error']}" if image["error"] else text


def _bundled(status: dict[str, Any]) -> list[str]:
    lines = [
        f"phase     {status['phase']}: {_PHASES[status['phase']]}",
        f"bundle    {status['parts_made']} parts made, {human(status['sealed_bytes'])} sealed",
        f"read      {human(status['image_bytes_read'])} of the image",
        f"mounted   for {status['seconds']:.0f} s, by process {status['pid']}",
    ]
    return lines + _twice(status) + _waiting(status)


def _twice(status: dict[str, Any]) -> list[str]:
    again, given = (status.get(name, 0) for name in ("blocks_made_again", "page_cache_bytes"))
    if not (again or given):
        return []
    made = status["blocks_compressed"]
    return [f"again     {again} of {made} blocks; the page cache was given {human(given)}"]


def _waiting(status: dict[str, Any]) -> list[str]:
    if not (silent := status.get("storage_silent_seconds")):
        return []
    whose = "the storage of an image" if "images" in status else "storage"
    return [f"waiting   {_silence(silent, whose)}; what needs it goes on when it does"]


def _silence(seconds: float, whose: str = "storage") -> str:
    return f"{whose} has not answered for {seconds:.0f} s"


def _opened(status: dict[str, Any]) -> list[str]:
    failed = "a read failed; the next one tries again" if status["error"] else "no read has failed"
    if status["phase"] == "indexing":
        failed = "a read waits for the first pass over the bundle"
    return [
        f"phase     {status['phase']}: {failed}",
        f"bundle    {human(status['sealed_bytes'])}, opened {status['access']}",
        f"mounted   by process {status['pid']}",
    ]
