"""How soon the commands answer: `bundlefs mount` until it returns, and those about a mount."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measure import Cost

_BUNDLEFS = [sys.executable, "-m", "bundlefs"]


def commands(image: Path, mountpoint: Path, folder: Path) -> dict[str, Callable[[], Cost]]:
    """Return what measures each command, in an order in which they can be run in turn.

    The mount is as a user makes it: in the background, with a state that is new each time.
    """
    mountpoint.mkdir(exist_ok=True)
    mount = ["mount", "--account", "123456789012", "--fresh", str(image), str(mountpoint)]
    words = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "bundlefs mount": [*_BUNDLEFS, *mount],
        "bundlefs status": [*_BUNDLEFS, "status", str(mountpoint)],
        "bundlefs umount": [*_BUNDLEFS, "umount", str(mountpoint)],
        "bundlefs --help": [*_BUNDLEFS, "--help"],
    }
    environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")}
    return {name: _measuring(each, environment) for name, each in words.items()}


def _measuring(command: list[str], environment: dict[str, str]) -> Callable[[], Cost]:
    def measure() -> Cost:
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        wall = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
        return Cost(wall, 0, 0)

    return measure
