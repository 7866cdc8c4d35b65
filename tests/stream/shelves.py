"""What a folder of images opens here: views that are none, by who notes what is asked of it."""

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bundlefs.fuse.shelf import Shelf
from bundlefs.fuse.shelved import Passing
from bundlefs.fuse.views import View
from bundlefs.unbundling.view import OpenStatus
from tests.stream.engine import HANG


class Made:
    """As much of a view as a shelf sees of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.phase = "complete"
        self.closed = False
        self.created_ns = 1
        self.rests = True
        self.error: Exception | None = None

    def status(self) -> OpenStatus:
        return OpenStatus(self.phase, str(self.path), 7, 3, "", None)

    def space(self) -> tuple[int, int]:
        return 7, 3

    def close(self) -> None:
        self.closed = True

    def idle(self) -> bool:
        return self.rests

    def failure(self) -> BaseException | None:
        return self.error

    def check(self) -> None:
        if self.error:
            raise self.error


class Opener:
    """Opens by making; raises `error` instead, waits for `gate` before."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.made: list[Any] = []
        self.error: Exception | None = None
        self.created_ns = 1
        self.path = Path()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: Path, number: int) -> Passing:
        self.calls.append((path.name, number))
        self.path = path
        assert self.gate.wait(HANG)
        if self.error:
            raise self.error
        self.made.append(Made(path))
        self.made[-1].created_ns = self.created_ns
        view: Passing = self.made[-1]
        return view


def wait(future: Future[View[Any]]) -> BaseException | None:
    """Wait until an image is open, and give what hindered it."""
    return future.exception(HANG)


def change(path: Path) -> None:
    """Write another image of the same length; its times differ whatever the clock's steps are."""
    path.write_bytes(b"other")
    now = time.time_ns()
    os.utime(path, ns=(now, now + 10**9))


def phases(shelf: Shelf) -> dict[str, str]:
    """Give the phase of each image that somebody has asked for."""
    return {image["name"]: image["phase"] for image in shelf.status().images}


def caused(error: Exception, cause: Exception) -> Exception:
    """Give an error with a cause."""
    error.__cause__ = cause
    return error
