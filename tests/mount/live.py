"""Live mounts of an image that a test spoils: how it is spoiled, and what is to be seen then."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.commands import attempt
from tests.support import images
from tests.support.mounts import Mount

SIZE = 45 * images.MIB
"""The bytes of the image that is spoiled: five parts, the last of them short."""


@dataclass(frozen=True, slots=True)
class Live:
    """A live mount of an image that the test may spoil, and the mount's log."""

    mount: Mount
    log: Path

    @property
    def image(self) -> Path:
        return self.mount.image

    def part(self, number: int) -> Path:
        return self.mount.path / f"image.part.{number:02}"


def shrink(image: Path) -> None:
    """Cut its last byte off."""
    os.truncate(image, SIZE - 1)


def empty(image: Path) -> None:
    """Cut it off at its start."""
    os.truncate(image, 0)


def grow(image: Path) -> None:
    """Append a byte to it."""
    os.truncate(image, SIZE + 1)


def edit(image: Path) -> None:
    """Change one byte in the middle."""
    with image.open("r+b") as stream:
        stream.seek(SIZE // 2)
        [old] = stream.read(1)
        stream.seek(SIZE // 2)
        stream.write(bytes([old ^ 1]))


def edit_and_keep_mtime(image: Path) -> None:
    """Change one byte in the middle, and set the time back."""
    before = image.stat()
    edit(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = [shrink, empty, grow, edit, edit_and_keep_mtime]


def assert_stale(ask: Callable[[], object]) -> None:
    """Ask, and be told that the image is another one."""
    with pytest.raises(OSError, match="Stale file handle") as caught:
        ask()
    assert caught.value.errno == errno.ESTALE


def assert_failed(live: Live) -> None:
    """The status says so for good, to people and scripts, and the log has it as one error."""
    status = live.mount.status()
    assert status["phase"] == "failed"
    assert f"image {live.image} was changed while in use: " in status["error"]
    shown = attempt("status", live.mount.path)
    assert shown.code == 1
    assert status["error"] in shown.out
    errors = [line for line in live.log.read_text().splitlines() if " ERROR: " in line]
    assert len(errors) == 1
    assert status["error"] in errors[0]
