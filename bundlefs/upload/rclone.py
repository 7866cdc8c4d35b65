"""rclone: how it lists and copies.

One process is asked for one file after the other, over a socket in a folder that nobody else may
look into [rclone.org/rc, operations/copyfile]. It compares sizes and times, as `rclone copy` does.
"""

import http.client
import json
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bundlefs.base.times import SECOND
from bundlefs.upload.children import Child
from bundlefs.upload.places import Wanted
from bundlefs.upload.senders import Sender
from bundlefs.upload.words import UploadError, ask, explained, need, tell

_START_SECONDS = 60
_TRANSFERS, _RETRIES = 4, 3
"""rclone's own defaults."""
_OK = 200
_SAME_NS = 10**6
"""S3 keeps the time as a decimal number; two bundles are not begun within a millisecond."""


class Rclone:
    """rclone. Settings of the bucket are not asked for: rclone has no words for them."""

    name = "rclone"

    def __init__(self, wanted: Wanted) -> None:
        place = wanted.dest
        need("rclone", f"{place.remote}:")
        self.top = f"{place.remote}:{place.bucket}"
        self.prefix = place.prefix
        self.target = f"{self.top}/{place.prefix}"
        self.acl = wanted.acl

    def check(self) -> None:
        """See that the bucket can be listed."""
        ask("rclone", "lsjson", self.top, "--max-depth", "1")
        tell("not checked: the bucket's ACLs and encryption (aws-cli could)")

    def copying(self, folder: Path) -> list[str]:
        """Return a command that does what is asked of the process, with a whole folder."""
        return ["rclone", "copy", str(folder), self.target, *self.options]

    @property
    def options(self) -> list[str]:
        """How files are copied; what a mount keeps is not buffered."""
        return ["--buffer-size", "0", "--s3-no-check-bucket", "--s3-acl", self.acl]

    def sender(self, work: Path) -> Sender:
        """Return what sends files; `work` is a folder for it alone."""
        return _Process(self, work)

    def sizes(self) -> dict[str, int]:
        """List what is there."""
        listed = json.loads(ask("rclone", "lsjson", self.target, "--files-only"))
        return {one["Name"]: one["Size"] for one in listed}


class _Process:
    """`rclone rcd`, which copies what it is told to."""

    least = 1
    ahead = 16
    at_first = 2

    def __init__(self, tool: Rclone, work: Path) -> None:
        self._tool = tool
        # The path of a socket has at most 107 bytes, and that of a folder may have more [unix(7)].
        folder = os.open(work, os.O_PATH | os.O_DIRECTORY)
        self._folder: int | None = folder
        self._socket = Path(f"/proc/self/fd/{folder}/rclone")
        self.slots = _setting("RCLONE_TRANSFERS", _TRANSFERS)
        self._attempts = _setting("RCLONE_RETRIES", _RETRIES)
        words = ["rclone", "rcd", "--rc-no-auth", "--rc-addr", f"unix://{self._socket}"]
        words += ["--log-level", "ERROR", *tool.options]
        self._child = Child(words, _heard, environment=_environment(), keeps=(folder,))
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._child.ended:
                raise self._child.failure()
            if time.monotonic() > deadline:
                raise UploadError(f"`rclone rcd` does not answer within {_START_SECONDS} s")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            _Connection(self._socket).connect()
        except OSError:
            return False
        return True

    def send(self, paths: list[Path]) -> None:
        for path in paths:
            self._copy(path)

    def _copy(self, path: Path) -> None:
        for attempt in range(1, self._attempts + 1):
            error = self._asked(path)
            if error is None:
                return
            if attempt == self._attempts or self._child.ended:
                raise UploadError(explained(("rclone", "copy", str(path)), 1, error))

    def is_there(self, name: str, size: int, time_ns: int) -> bool:
        """Return whether an object has this size, and the time of the file that was sent."""
        remote = f"{self._tool.prefix}/{name}"
        said = self._call("operations/stat", {"fs": self._tool.top, "remote": remote})
        # Whoever sends it then hears what is wrong with the server.
        item = said.get("item") if isinstance(said, dict) else None
        if item is None or item["Size"] != size:
            return False
        sent_ns = int(datetime.fromisoformat(item["ModTime"]).timestamp() * SECOND)
        return abs(sent_ns - time_ns) < _SAME_NS

    def _asked(self, path: Path) -> str | None:
        """Have a file copied; return what went wrong."""
        given = {
            "srcFs": str(path.parent.absolute()),
            "srcRemote": path.name,
            "dstFs": self._tool.top,
            "dstRemote": f"{self._tool.prefix}/{path.name}",
        }
        said = self._call("operations/copyfile", given)
        return said if isinstance(said, str) else None

    def _call(self, command: str, given: dict[str, str]) -> dict[str, Any] | str:
        """Have something done; return the answer, or what went wrong."""
        connection = _Connection(self._socket)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/{command}", json.dumps(given), headers)
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"rclone has ended ({error})"
        finally:
            connection.close()
        return said if answer.status == _OK else str(said.get("error"))

    def close(self) -> None:
        self._child.end()
        if self._folder is not None:
            os.close(self._folder)
        self._folder = None


class _Connection(http.client.HTTPConnection):
    """HTTP by a socket that is a file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.fspath(self._path))


def _heard(line: str) -> None:
    # It says a second time what it answers.
    if ": rc: " not in line:
        tell(line)


def _environment() -> dict[str, str]:
    """Return the environment without settings for a server, which are not meant for this one."""
    return {name: text for name, text in os.environ.items() if not name.startswith("RCLONE_RC")}


def _setting(name: str, default: int) -> int:
    """Return a setting that rclone itself takes from the environment for `rclone copy`."""
    text = os.environ.get(name, "")
    return max(1, int(text)) if text.isascii() and text.isdigit() else default
