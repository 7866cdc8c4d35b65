"""Uploads to a real S3 server on loopback, timed until the last byte is in the bucket."""

import itertools
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import others
from measure import Cost, shell
from mounts import ACCOUNT, mounted

TOOLS = {
    "rclone copy": "rclone copy -q {source} bench:{place}",
    "aws s3 sync": "aws s3 sync --only-show-errors {source} s3://{place}",
    "bundlefs-upload, rclone": "bundlefs-upload --no-check {source} bench:{place}",
    "bundlefs-upload, aws-cli": "bundlefs-upload --no-check {source} s3://{place}",
}
"""What copies a folder, and how."""
_OF_IMAGE = f" --no-size-limit --state none --account {ACCOUNT}"
IMAGE_TOOLS = {
    "bundlefs-upload IMAGE, rclone": TOOLS["bundlefs-upload, rclone"] + _OF_IMAGE,
    "bundlefs-upload IMAGE, aws-cli": TOOLS["bundlefs-upload, aws-cli"] + _OF_IMAGE,
}
"""What bundles an image and uploads it by one command."""
_QUIETLY = "{} >said 2>&1 || {{ cat said >&2; exit 1; }}"


class S3:
    """`rclone serve s3` over a folder, behind a wire of so many bytes a second if that is given."""

    def __init__(self, folder: Path, speed: float | None = None) -> None:
        self._folder = folder
        (folder / "bucket").mkdir(parents=True, exist_ok=True)
        self._copies = itertools.count()
        self._speed = speed
        self._keys = secrets.token_hex(8), secrets.token_hex(16)
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.endswith("_CA_BUNDLE") and not name.startswith(("AWS_", "RCLONE_"))
        }
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            port = self._served(stack)
            if self._speed:
                port = _wire(stack, port, self._speed)
            self._held = stack.pop_all()
        self._environment |= self._settings(f"http://127.0.0.1:{port}")
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _served(self, stack: ExitStack) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        address = f"127.0.0.1:{port}"
        command = ["rclone", "serve", "s3", "--addr", address, "--auth-key", ",".join(self._keys)]
        server = subprocess.Popen(
            [*command, "."], cwd=self._folder, env=self._environment, stderr=subprocess.DEVNULL
        )
        stack.callback(_end, server)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            time.sleep(0.05)
        raise SystemExit("rclone serve s3 does not answer")

    def _settings(self, url: str) -> dict[str, str]:
        """Return what makes rclone and aws-cli find the server, with their defaults otherwise."""
        key, secret = self._keys
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Rclone",
            "ACCESS_KEY_ID": key,
            "SECRET_ACCESS_KEY": secret,
            "ENDPOINT": url,
        }
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "RCLONE_CONFIG": os.devnull,
            **{f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()},
        }

    def copy(self, source: Path, tool: str = "rclone copy") -> Cost:
        """Copy a folder, or an image, into the bucket; `size` is that of the parts that arrived."""
        # A place of its own: the server remembers for minutes what it has had under a name.
        place = f"bucket/{next(self._copies)}"
        command = (TOOLS | IMAGE_TOOLS)[tool]
        script = command.format(source=shlex.quote(str(source)), place=place)
        cost = shell(_QUIETLY.format(script), self._folder, self._environment)
        size = sum(path.stat().st_size for path in (self._folder / place).glob("*.part.*"))
        shutil.rmtree(self._folder / place)
        return Cost(cost.wall, cost.cpu, cost.peak, size)

    def upload_mount(self, image: Path, mountpoint: Path) -> Cost:
        """Mount with the defaults, copy, unmount."""
        with mounted(image, mountpoint) as daemon:
            cost = self.copy(mountpoint)
            peak = cost.peak + daemon.peak()
            cpu = daemon.end()
        return Cost(cost.wall, cpu, peak, cost.size)

    def upload_after(self, recipe: str, image: Path, folder: Path) -> Cost:
        """Bundle into a folder, then copy that."""
        made = others.bundle(recipe, image, folder)
        cost = self.copy(folder)
        return Cost(made.wall + cost.wall, made.cpu + cost.cpu, max(made.peak, cost.peak))


def _wire(stack: ExitStack, port: int, speed: float) -> int:
    """Put a wire of this speed before a port, and return the port before that."""
    script = str(Path(__file__).with_name("relay.py"))
    wire = subprocess.Popen(
        [sys.executable, script, str(port), str(speed)], stdout=subprocess.PIPE, text=True
    )
    stack.callback(_end, wire)
    assert wire.stdout is not None  # noqa: S101  # for type checkers
    return int(wire.stdout.readline())


def _end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.communicate()
