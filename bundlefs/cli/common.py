"""What several commands share: types of arguments, sizes as people write them."""

import argparse
import re
from typing import Protocol


class Subparsers(Protocol):
    """Where a command adds its parser (argparse has no public name for this)."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002  # the name that argparse gives it
        description: str,
        allow_abbrev: bool,
    ) -> argparse.ArgumentParser:
        """Declare a command."""


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """Read a number of bytes: 4096, 64K, 256M, 1.5G or 64MiB (powers of 1,024)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 4096, 64K, 256M or 1G")
    return int(float(match[1]) * _UNITS[match[2]])


def positive(text: str) -> int:
    """Read a whole number from 1 up."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def human(count: float) -> str:
    """Write a number of bytes for a person: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004  # the step between the units
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
