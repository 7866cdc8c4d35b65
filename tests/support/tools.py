"""Stock tools and the environment they run in: what every other helper here starts from.

Nothing in this folder but `mounts.py` knows of bundlefs, and that only as a
command: an oracle that shared code with the thing it checks would share its bugs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ACCOUNT = "123456789012"

# Of the machine's settings only these reach a tool. A proxy or a certificate bundle that
# is meant for the internet makes rclone and aws fail on loopback, so the list names what
# passes rather than what does not.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME")


def tool(name: str) -> str:
    """Return the path of a stock tool; the tests' own environment comes first, sbin last.

    Raises:
        FileNotFoundError: It is not installed. Tests fail by this, they never skip.
    """
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: contrib/check installs what is missing")
    return found


def clean_env(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment without the machine's settings, with `home` as HOME, plus `extra`."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {"HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"} | extra


def run(
    command: Sequence[str | Path],
    *,
    data: bytes | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 240,
) -> bytes:
    """Run a stock tool to its end and give its stdout.

    Raises:
        AssertionError: It ended with another code than 0; the text shows what it said.
        subprocess.TimeoutExpired: It took longer than `timeout` seconds.
    """
    words = [tool(str(command[0])), *map(str, command[1:])]
    done = subprocess.run(
        words, input=data, env=env, cwd=cwd, timeout=timeout, capture_output=True, check=False
    )
    # cmp and openssl say on stdout what is wrong; the content of a file is not wanted here
    complaint = (done.stderr + done.stdout[-1000:]).decode(errors="replace")
    assert done.returncode == 0, f"{words} ended with {done.returncode}: {complaint}"
    return done.stdout


def pipeline(script: str, *arguments: str | Path, timeout: float = 240) -> tuple[bytes, str]:
    """Run a bash pipeline with `arguments` as $1, $2, ...; any stage that fails fails it.

    Returns:
        Its stdout and its stderr.
    """
    words = [tool("bash"), "-euo", "pipefail", "-c", script, "pipeline", *map(str, arguments)]
    done = subprocess.run(words, timeout=timeout, capture_output=True, check=False)
    complaint = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{script} ended with {done.returncode}: {complaint}"
    return done.stdout, complaint
