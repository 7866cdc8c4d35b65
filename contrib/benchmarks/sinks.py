"""Uploads to a real S3 server on loopback, timed until the last byte is in the bucket."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import others
from measure import Cost, shell
from mounts import mounted


class S3:
    """`rclone serve s3` over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "bucket").mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        key, secret = secrets.token_hex(8), secrets.token_hex(16)
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.endswith("_CA_BUNDLE") and not name.startswith(("AWS_", "RCLONE_"))
        }
        self._auth = f"{key},{secret}"
        self._remote = (
            f":s3,provider=Rclone,access_key_id={key},secret_access_key={secret},"
            f"endpoint='http://127.0.0.1:{self._port}':bucket"
        )

    def __enter__(self) -> Self:
        address = f"127.0.0.1:{self._port}"
        command = ["rclone", "serve", "s3", "--addr", address, "--auth-key", self._auth, "."]
        self._server = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return self
            time.sleep(0.05)
        raise SystemExit("rclone serve s3 does not answer")

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()

    def _copy(self, folder: Path) -> Cost:
        bucket = self._folder / "bucket"
        shutil.rmtree(bucket)
        bucket.mkdir()
        script = f'rclone copy -q "{folder}" "{self._remote}"'
        return shell(script, self._folder, self._environment)

    def upload_mount(self, image: Path, mountpoint: Path) -> Cost:
        """Mount with the defaults, copy, unmount."""
        with mounted(image, mountpoint) as daemon:
            cost = self._copy(mountpoint)
            peak = cost.peak + daemon.peak()
            cpu = daemon.end()
        return Cost(cost.wall, cpu, peak)

    def upload_after(self, recipe: str, image: Path, folder: Path) -> Cost:
        """Bundle into a folder, then copy that."""
        made = others.bundle(recipe, image, folder)
        cost = self._copy(folder)
        return Cost(made.wall + cost.wall, made.cpu + cost.cpu, max(made.peak, cost.peak))
