"""Whether what takes long is shown: by a bar, which is loaded only for a terminal, or by lines."""

import logging
import sys

from bundlefs.base import progress


def show_waits(*, quiet: bool) -> None:
    """Have what takes long shown from now on: on a terminal by a bar, else by lines in the log."""
    progress.log.setLevel(logging.WARNING if quiet else logging.INFO)
    if quiet or not sys.stderr.isatty():
        progress.observe(None)
        return
    from bundlefs.cli.bars import Drawing  # noqa: PLC0415  # tqdm is for terminals

    progress.observe(Drawing())
