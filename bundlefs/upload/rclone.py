"""rclone: how it lists and copies."""

import json
from pathlib import Path

from bundlefs.upload.places import Wanted
from bundlefs.upload.words import ask, need, tell


class Rclone:
    """rclone. Settings of the bucket are not asked for: rclone has no words for them."""

    def __init__(self, wanted: Wanted) -> None:
        place = wanted.dest
        need("rclone", f"{place.remote}:")
        self.top = f"{place.remote}:{place.bucket}"
        self.target = f"{self.top}/{place.prefix}"
        self.acl = wanted.acl

    def check(self) -> None:
        """See that the bucket can be listed."""
        ask("rclone", "lsjson", self.top, "--max-depth", "1")
        tell("not checked: the bucket's ACLs and encryption (aws-cli could)")

    def copying(self, folder: Path, names: list[str]) -> list[str]:
        """Return the command that copies what is missing; what a mount keeps is not buffered."""
        filters = [word for name in names for word in ("--include", f"/{name}")]
        words = ["rclone", "copy", str(folder), self.target, "-v", "--buffer-size", "0"]
        return [*words, "--s3-no-check-bucket", "--s3-acl", self.acl, *filters]

    def sizes(self) -> dict[str, int]:
        """List what is there."""
        listed = json.loads(ask("rclone", "lsjson", self.target, "--files-only"))
        return {one["Name"]: one["Size"] for one in listed}
