"""An unmount in the middle of much work waits for what is under way, and for nothing behind it."""

import subprocess
import sys
from pathlib import Path

from tests.mount.commands import eventually
from tests.support import images
from tests.support.mounts import BUNDLEFS, clear, is_mounted, mounted, read_status, settings
from tests.support.processes import ended
from tests.support.tools import tool

GATED = """
import sys, time
from pathlib import Path
from bundlefs.cli import main
from bundlefs.bundling.maker import Maker

def deflate(self, plain, real=Maker.deflate, folder=Path(sys.argv.pop(1))):
    with (folder / "begun").open("ab") as begun:
        begun.write(b".")
    while not (folder / "gate").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    return real(self, plain)

Maker.deflate = deflate
sys.exit(main(sys.argv[1:]))
"""
"""A mount that counts the blocks it begins, holds them until there is a gate, and is slow then."""
READERS = 4


def waits(pid: int) -> bool:
    """Whether a process waits for a file system or for what it is to give."""
    return Path(f"/proc/{pid}/wchan").read_text().startswith(("request_wait", "folio_wait"))


def test_blocks_for_readers_that_are_gone(tmp_path: Path, mountpoint: Path) -> None:
    image = images.random_image(tmp_path / "disk", READERS * 11 * images.MIB)
    options = ("--level=1", "--jobs=1", "--cache-size=0", str(image), str(mountpoint))
    with mounted(image, mountpoint, *options[:3]) as mount:
        # From here on all is known, and what is read is made again.
        assert len(mount.parts()) > READERS
    gated = [sys.executable, "-c", GATED, str(tmp_path), "mount", *options]
    subprocess.run(gated, env=settings(), check=True, timeout=60)
    pid = int(read_status(mountpoint)["pid"])
    try:
        parts = [mountpoint / f"image.part.{number:02d}" for number in range(READERS)]
        readers = [
            subprocess.Popen([tool("cat"), part], stdout=subprocess.DEVNULL) for part in parts
        ]
        assert eventually((tmp_path / "begun").exists)
        assert eventually(lambda: all(waits(reader.pid) for reader in readers))
        for reader in readers:
            reader.kill()
            reader.wait()
        umount = subprocess.Popen([*BUNDLEFS, "umount", str(mountpoint)])
        assert eventually(lambda: not is_mounted(mountpoint))
        (tmp_path / "gate").touch()
        assert umount.wait(60) == 0
        assert ended(pid, 0)
    finally:
        (tmp_path / "gate").touch()
        clear(mountpoint, pid)
    # One is under way; one more may begin before the end is seen. Each reader waits for several.
    assert len((tmp_path / "begun").read_bytes()) <= 3
