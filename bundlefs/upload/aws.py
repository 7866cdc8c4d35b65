"""aws-cli: what it says of a bucket, and how it copies.

It takes a second to start, and no files beyond those that it is given: so it gets a folder of
links to what has gathered meanwhile. Two are at work, so that one starts while the other sends.
"""

import json
import threading
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from bundlefs.base.times import SECOND
from bundlefs.upload.children import Child
from bundlefs.upload.places import Wanted
from bundlefs.upload.s5cmd import Commands
from bundlefs.upload.senders import Remaining, Sender, in_background
from bundlefs.upload.words import UploadError, ask, need

ENABLE_ACLS = (
    "aws s3api put-bucket-ownership-controls --bucket {bucket}"
    " --ownership-controls 'Rules=[{{ObjectOwnership=BucketOwnerPreferred}}]'"
)


class Aws:
    """aws-cli."""

    def __init__(self, wanted: Wanted) -> None:
        need("aws", "s3://")
        if wanted.s5cmd:
            need("s5cmd", "--s5cmd")
        self.name = "s5cmd" if wanted.s5cmd else "aws-cli"
        self.wanted = wanted
        self.place = wanted.dest
        self.acl = wanted.acl
        self.region = ["--region", wanted.region] if wanted.region else []

    def check(self) -> None:
        """Refuse a bucket that EC2 could not use; made with ACLs disabled by default.

        Raises:
            UploadError: it is one, or it cannot be asked.
        """
        bucket = self.place.bucket
        self._api("head-bucket")
        rules = self._api("get-bucket-ownership-controls", unless="OwnershipControlsNotFoundError")
        if "BucketOwnerEnforced" in rules:
            raise UploadError(
                f"bucket {bucket} has ACLs disabled, and EC2 needs {self.acl}; enable them:"
                f" {ENABLE_ACLS.format(bucket=bucket)}"
            )
        absent = "ServerSideEncryptionConfigurationNotFoundError"
        if "aws:kms" in self._api("get-bucket-encryption", unless=absent):
            raise UploadError(
                f"bucket {bucket} encrypts by KMS, which EC2 cannot read; use a bucket with"
                " SSE-S3 (AES256), the default"
            )

    def _api(self, command: str, *words: str, unless: str | None = None) -> str:
        options = ("--bucket", self.place.bucket, "--output", "json", *self.region)
        return ask("aws", "s3api", command, *options, *words, unless=unless)

    def copying(self, folder: Path) -> list[str]:
        """Return the command that copies what is missing of a folder."""
        to = f"s3://{self.place.bucket}/{self.place.prefix}"
        if self.wanted.s5cmd:
            return ["s5cmd", "cp", "--acl", self.acl, f"{folder}/", f"{to}/"]
        words = ["aws", "s3", "sync", str(folder), to]
        return [*words, "--only-show-errors", *self.region, "--acl", self.acl]

    def sender(self, work: Path) -> Sender:
        """Return what sends files; `work` is a folder for it alone."""
        listed = in_background(self.listed)

        def is_there(name: str, size: int, time_ns: int) -> bool:
            # As `aws s3 sync` compares them.
            one = listed.result().get(name)
            return one is not None and one.size == size and time_ns <= one.written_ns

        if self.wanted.s5cmd:
            return Remaining(Commands(self.wanted), is_there)
        # It compares by itself as well.
        return Remaining(_Batches(self, work), is_there, listed.done)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of what is there."""
        return {name: there.size for name, there in self.listed().items()}

    def listed(self) -> dict[str, "There"]:
        """List what is there."""
        start = f"{self.place.prefix}/"
        listed = json.loads(self._api("list-objects-v2", "--prefix", start) or "{}")
        return {
            one["Key"].removeprefix(start): There(
                one["Size"],
                int(datetime.fromisoformat(one["LastModified"]).timestamp() * SECOND),
            )
            for one in listed.get("Contents") or []
        }


@dataclass(frozen=True, slots=True)
class There:
    """An object."""

    size: int
    written_ns: int


class _Batches:
    """Runs `aws s3 sync` for each batch of files."""

    slots = 2
    least = 12
    ahead = 32
    at_first = 4

    def __init__(self, tool: Aws, work: Path) -> None:
        self._tool = tool
        self._work = work
        self._numbers = count()
        self._lock = threading.Lock()
        self._running: set[Child] = set()
        self._closed = False

    def send(self, paths: list[Path]) -> None:
        folder = self._work / f"batch-{next(self._numbers)}"
        folder.mkdir()
        for path in paths:
            (folder / path.name).symlink_to(path.absolute())
        child = self._start(folder)
        try:
            child.wait()
        finally:
            self._running.discard(child)

    def _start(self, folder: Path) -> Child:
        with self._lock:
            if self._closed:
                raise UploadError("the upload was ended")
            child = Child(self._tool.copying(folder))
            self._running.add(child)
        return child

    def close(self) -> None:
        with self._lock:
            self._closed = True
        for child in list(self._running):
            child.end()
