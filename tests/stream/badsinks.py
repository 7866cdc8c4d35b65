"""Sinks that note what is asked of them and fail when told to, and what the tests write to them.

What is closed is in `files`; what is open and neither closed nor discarded is in `loose`.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bundlefs import BundleWriter, Metadata, Sink, State
from tests.stream.engine import CREATED, HANG, NANOSECONDS, SECRET, user_keys
from tests.support import images
from tests.support.tools import ACCOUNT

MIB = 1 << 20
IMAGE = b"".join(images.noise(23 * MIB, "sinks"))
"""What is bundled: two parts and a bit."""


def no_room() -> OSError:
    """Make the error of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def identity() -> State:
    """Make a state with the secret and the time of the other tests, and no holes."""
    return State(None, SECRET, CREATED * NANOSECONDS + 1)


@dataclass(slots=True)
class Plan:
    """When to fail: `call` is open, write or close; `after` that many of them went well."""

    call: str = "never"
    after: int = 0
    times: int = 1 << 30
    error: BaseException = field(default_factory=no_room)

    def count(self, call: str) -> None:
        """Note a call; raise if it is the one."""
        if call != self.call:
            return
        self.after -= 1
        if self.after < 0 < self.times:
            self.times -= 1
            raise self.error


class NotingSink:
    """A sink in memory."""

    def __init__(self, plan: Plan | None = None, pause: float = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.loose: list[str] = []
        self.order: list[str] = []
        self.plan = plan or Plan()
        self.pause = pause
        self.gate = threading.Event()
        self.gate.set()

    def open(self, filename: str) -> "NotingFile":
        """Begin a file."""
        self.plan.count("open")
        return NotingFile(self, filename)


class NotingFile:
    """A file of a `NotingSink`."""

    def __init__(self, sink: NotingSink, name: str) -> None:
        self._sink = sink
        self._name = name
        self._data = bytearray()
        sink.loose.append(name)

    def write(self, data: memoryview) -> int:
        """Take all of it, when the gate is open."""
        assert self._sink.gate.wait(HANG), "the test left a gate closed"
        time.sleep(self._sink.pause)
        self._sink.plan.count("write")
        self._data += data
        return len(data)

    def close(self) -> None:
        """Have it under its name."""
        self._sink.plan.count("close")
        self._sink.files[self._name] = bytes(self._data)
        self._sink.order.append(self._name)
        self._sink.loose.remove(self._name)

    def discard(self) -> None:
        """Forget it."""
        self._sink.loose.remove(self._name)


def parts_in(files: Mapping[str, bytes]) -> list[bytes]:
    """Give the parts among the files of a bundle, in order."""
    return [files[name] for name in sorted(files) if ".part." in name]


def bundle_to(sink: Sink, image: bytes, between: Callable[[int], None] | None = None) -> None:
    """Write a bundle and its manifest; `between` is told how many bytes went before each MiB."""
    keys = user_keys()
    with BundleWriter("image", len(image), sink, level=1, user_keys=keys, state=identity()) as to:
        for start in range(0, len(image), MIB):
            if between:
                between(start)
            to.write(image[start : start + MIB])
    to.write_manifest(Metadata(ACCOUNT))
