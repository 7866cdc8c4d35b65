"""Real servers on loopback, and the sinks' command lines against them.

Each server picks its own free port and says so in its log, so nothing races
for a number. Sinks run with a cleaned environment, since settings change how they read a folder.
"""

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.tools import clean_env, run, tool

REGION = "us-east-1"
READY_SECONDS = 60
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: `url` without a slash at the end, and what it takes to sign."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int = 0

    def at(self, url: str) -> "Server":
        """Return the same server as reached through `url`, a proxy's."""
        return replace(self, url=url)


_BUSY = {"01", "03", "08"}
"""Connections that a server has not ended: established, arriving, or left by who is gone."""


def is_idle(server: Server) -> bool:
    """Whether a server is done with all who were connected, gone ones too [proc_net_tcp(5)]."""
    port = f":{urlsplit(server.url).port:04X}"
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return not any(fields[1].endswith(port) and fields[3] in _BUSY for fields in lines)


@contextlib.contextmanager
def started(command: Sequence[str], announced: str, scratch: Path) -> Iterator[tuple[str, int]]:
    """Run a server until the `with` ends; gives the URL that the pattern `announced` finds.

    And its process id.

    Raises:
        AssertionError: It ended, or said nothing within a minute; the text shows its log.
    """
    log = scratch / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=clean_env(scratch))
    try:
        yield wait_for(server, announced, log), server.pid
    finally:
        stop(server)


def wait_for(server: subprocess.Popen[bytes], announced: str, log: Path) -> str:
    """Wait until the log holds `announced`; gives its first group."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(announced, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"{server.args!r} is not ready: {log.read_text(errors='replace')}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server, at last by force."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextlib.contextmanager
def rclone_s3(folder: Path, scratch: Path) -> Iterator[Server]:
    """Serve `folder` by `rclone serve s3`: its subfolders are the buckets."""
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    command = [tool("rclone"), "serve", "s3", "--addr", "127.0.0.1:0"]
    command += ["--auth-key", f"{key},{secret}", str(folder)]
    with started(command, r"Starting s3 server on \[(http://[^/\]]+)", scratch) as (url, pid):
        yield Server(url, key, secret, pid)


@contextlib.contextmanager
def moto(scratch: Path) -> Iterator[Server]:
    """Run moto's server, which answers for S3 and EC2."""
    command = [tool("moto_server"), "-H", "127.0.0.1", "-p", "0"]
    with started(command, r"Running on (http://[\d.:]+)", scratch) as (url, pid):
        yield Server(url, "testing", secrets.token_hex(8), pid)


def settings(server: Server, home: Path, remote: str = "sink", **extra: str) -> dict[str, str]:
    """Return a clean environment in which aws-cli reaches a server, and rclone by `remote`."""
    config = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": server.url,
        "ACCESS_KEY_ID": server.access_key,
        "SECRET_ACCESS_KEY": server.secret_key,
    }
    return clean_env(
        home,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        AWS_ENDPOINT_URL=server.url,
        AWS_ACCESS_KEY_ID=server.access_key,
        AWS_SECRET_ACCESS_KEY=server.secret_key,
        AWS_DEFAULT_REGION=REGION,
        AWS_EC2_METADATA_DISABLED="true",
        **{f"RCLONE_CONFIG_{remote.upper()}_{key}": value for key, value in config.items()},
        **extra,
    )


def aws(server: Server, home: Path, *words: str | Path) -> bytes:
    """Run aws-cli against a server, with its defaults otherwise."""
    return run(["aws", *words], env=settings(server, home))


def rclone(server: Server, home: Path, *words: str | Path) -> bytes:
    """Run rclone against a server that it knows as `sink:`, with its defaults otherwise."""
    return run(["rclone", *words], env=settings(server, home))
