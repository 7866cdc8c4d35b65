"""aws-cli: what it says of a bucket, and how it copies."""

import json
from pathlib import Path

from bundlefs.upload.places import Wanted
from bundlefs.upload.words import UploadError, ask, need

ENABLE_ACLS = (
    "aws s3api put-bucket-ownership-controls --bucket {bucket}"
    " --ownership-controls 'Rules=[{{ObjectOwnership=BucketOwnerPreferred}}]'"
)


class Aws:
    """aws-cli."""

    def __init__(self, wanted: Wanted) -> None:
        need("aws", "s3://")
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

    def copying(self, folder: Path, names: list[str]) -> list[str]:
        """Return the command that copies what is missing."""
        filters = [word for name in names for word in ("--include", name)]
        words = ["aws", "s3", "sync", str(folder), f"s3://{self.place.bucket}/{self.place.prefix}"]
        words += ["--no-progress", *self.region, "--acl", self.acl]
        return [*words, "--exclude", "*", *filters]

    def sizes(self) -> dict[str, int]:
        """List what is there."""
        start = f"{self.place.prefix}/"
        listed = json.loads(self._api("list-objects-v2", "--prefix", start) or "{}")
        objects = listed.get("Contents") or []
        return {one["Key"].removeprefix(start): one["Size"] for one in objects}
