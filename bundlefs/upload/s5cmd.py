"""s5cmd, in place of aws-cli where it is asked for: it takes commands as they come.

It is told which files to send, but not to compare them: it does not say when one need not be sent.
"""

import json
import shlex
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bundlefs.base.threads import start_abandonable
from bundlefs.upload.children import Child
from bundlefs.upload.places import Wanted
from bundlefs.upload.words import UploadError, explained, tell

PROGRAM = "s5cmd"


class Commands:
    """`s5cmd run`."""

    slots = 4
    least = 1
    ahead = 16
    at_first = 2

    def __init__(self, wanted: Wanted) -> None:
        place = wanted.dest
        self._target = f"s3://{place.bucket}/{place.prefix}"
        self._options = ["--raw", "--acl", wanted.acl]
        if wanted.region:
            self._options += ["--destination-region", wanted.region]
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[None]] = {}
        self._child = Child([PROGRAM, "--json", "run"], self._failed, talks=True)
        start_abandonable(self._listen, "answers")

    def send(self, paths: list[Path]) -> None:
        """Send files."""
        for future in [self._begin(path) for path in paths]:
            future.result()

    def _begin(self, path: Path) -> Future[None]:
        to, future = f"{self._target}/{path.name}", Future[None]()
        command = shlex.join(["cp", *self._options, str(path.absolute()), to])
        try:
            with self._lock:
                self._waiting[to] = future
                self._child.say(command)
        except (OSError, ValueError) as error:
            raise self._child.failure() from error
        return future

    def _listen(self) -> None:
        """Hear what has arrived, up to the end."""
        for line in self._child.process.stdout or ():
            said = _read(line)
            if said.get("success") and (future := self._taken(said.get("destination", ""))):
                future.set_result(None)
        self._child.process.wait()
        with self._lock:
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(self._child.failure())

    def _failed(self, line: str) -> None:
        said = _read(line)
        command = str(said.get("command"))
        to = next((one for one in self._named if command.endswith(f" {one}")), "")
        if future := self._taken(to):
            words = (PROGRAM, "cp", to)
            future.set_exception(UploadError(explained(words, 1, str(said.get("error")))))
        else:
            tell(line)

    @property
    def _named(self) -> list[str]:
        with self._lock:
            return list(self._waiting)

    def _taken(self, to: str) -> Future[None] | None:
        with self._lock:
            return self._waiting.pop(to, None)

    def close(self) -> None:
        """End it."""
        self._child.end()


def _read(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
