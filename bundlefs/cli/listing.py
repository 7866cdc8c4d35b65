"""The list of all mounts that `bundlefs status` shows if none is named."""

import json
from dataclasses import asdict
from typing import Any

from bundlefs.base.escapes import escaped
from bundlefs.base.progress import percent
from bundlefs.cli.common import human
from bundlefs.cli.streams import show
from bundlefs.fuse.all_mounts import Mounted, all_mounts

_WIDEST = 40
"""A column that is no wider keeps most lines on a terminal."""


def list_mounts(*, as_json: bool) -> int:
    """Print a line for each mount; return 1 if one has failed or does not answer, else 0."""
    found = all_mounts()
    if as_json:
        print(json.dumps([asdict(mounted) for mounted in found], indent=1))
    elif found:
        _print_table([_columns(mounted) for mounted in found])
    else:
        show("nothing is mounted")
    return 1 if any(mounted.at_fault for mounted in found) else 0


def _columns(mounted: Mounted) -> tuple[str, str, str]:
    if (status := mounted.status) is None:
        return mounted.mountpoint, mounted.answer, mounted.error or ""
    return mounted.mountpoint, ", ".join(_state(status)), mounted.source


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    safe = [tuple(map(escaped, row)) for row in rows]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*safe, strict=True)]
    for row in safe:
        show("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _state(status: dict[str, Any]) -> list[str]:
    """Return in some words where a mount stands, the phase first."""
    words = [status["phase"]]
    if (done := percent(status)) is not None:
        words.append(f"{done:.0f} %")
    if "images" in status:
        words.append(f"{len(status['images'])} images")
        if failed := [one for one in status["images"] if one["phase"] == "failed"]:
            words.append(f"{len(failed)} of them failed")
    elif "image_size" in status:
        words.append(human(status["image_size"]))
    if silent := status.get("storage_silent_seconds"):
        words.append(f"storage silent for {silent:.0f} s")
    return words
