"""The way back, measured: a bundle that is there, undone by stock tools and by bundlefs."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from images import dense
from measure import Cost, Daemon, shell

from bundlefs.keys.files import load_private_key
from bundlefs.keys.rsa import unwrap
from bundlefs.manifest.read import read_manifest

_READS = 200
_PIECE = 4096


class Back:
    """A bundle of `times` the base image, made by bundlefs, whose state is not at hand."""

    def __init__(self, folder: Path, base: Path, times: int) -> None:
        folder.mkdir()
        self._folder = folder
        self.image = dense(base, folder / "image.raw", times)
        self._key = folder / "key.pem"
        self._manifest = folder / "bundle" / "image.manifest.xml"
        self._environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")}

    def __enter__(self) -> Self:
        generate = ["openssl", "genrsa", "-out", str(self._key), "2048"]
        subprocess.run(generate, check=True, capture_output=True)
        command = ["bundle", "--state", "none", "--account", "123456789012", "--user-key"]
        self._run([*command, str(self._key), str(self.image), str(self._manifest.parent)])
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)

    def _run(self, words: list[str]) -> None:
        command = [sys.executable, "-m", "bundlefs", *words]
        subprocess.run(command, check=True, env=self._environment, capture_output=True)

    def stock(self) -> Cost:
        """Undo it with stock tools, into a file."""
        manifest = read_manifest(self._manifest)
        wrapped = (manifest.user_key or "", manifest.user_iv or "")
        secret = unwrap(load_private_key(self._key), wrapped)
        script = (
            f"cat bundle/image.part.* | openssl enc -d -aes-128-cbc -K {secret.key.hex()}"
            f" -iv {secret.iv.hex()} | gunzip | tar -xO >stock.raw"
        )
        return shell(script, self._folder)

    def unbundle(self) -> Cost:
        """Undo it with bundlefs, into a file."""
        script = (
            f"{sys.executable} -m bundlefs unbundle --force --user-key key.pem 2>/dev/null"
            " -o ours.raw bundle/image.manifest.xml"
        )
        return shell(script, self._folder)

    def opened(self) -> tuple[float, float]:
        """Open it; give the seconds of a first read at the end, and of later ones (median)."""
        mountpoint = self._folder / "mnt"
        mountpoint.mkdir()
        command = [sys.executable, "-m", "bundlefs", "open", "-f", "--user-key", str(self._key)]
        command += [str(self._manifest), str(mountpoint)]
        os.environ.update(self._environment)
        with Daemon(command, lambda: os.path.ismount(mountpoint)):
            path = mountpoint / f"{read_manifest(self._manifest).file_stem}.img"
            file = os.open(path, os.O_RDONLY)
            try:
                # The kernel's read-ahead would read what nobody asked for.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
                size = os.fstat(file).st_size
                first = _timed_read(file, size - _PIECE)
                draw = random.Random(1)  # noqa: S311  # offsets, not secrets
                later = [_timed_read(file, draw.randrange(size - _PIECE)) for _ in range(_READS)]
            finally:
                os.close(file)
        return first, statistics.median(later)


def _timed_read(file: int, offset: int) -> float:
    start = time.perf_counter()
    os.pread(file, _PIECE, offset)
    return time.perf_counter() - start
