"""Where a bundle goes, and all else that is asked of an upload."""

from dataclasses import dataclass

from bundlefs.base.errors import UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle goes; `remote` is rclone's, and empty for s3://."""

    remote: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.remote or 's3'}:{'' if self.remote else '//'}{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, beside what is uploaded: as the options of the command line have it."""

    dest: Place
    acl: str
    region: str | None
    register: str | None
    root_device_name: str
    dry_run: bool
    no_check: bool
    s5cmd: bool
    quiet: bool


def place(text: str) -> Place:
    """Read a destination.

    Raises:
        UsageError: EC2 could not use it, or it is none.
    """
    remote, _, path = text.partition(":")
    if not remote or not path:
        raise UsageError(f"{text!r}: give s3://BUCKET/PREFIX or REMOTE:...")
    if remote == "s3" and path.startswith("//"):
        remote, path = "", path[2:]
    bucket, *folders = path.split("/")
    if not folders or "" in (bucket, *folders):
        raise UsageError(f"{text!r}: EC2 wants BUCKET/PREFIX, without '//' and '/' at its ends")
    return Place(remote, bucket, "/".join(folders))
