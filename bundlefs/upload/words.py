"""How tools are run and what they say: shown, kept, and explained where it is known."""

import shlex
import shutil
import subprocess
import sys
import threading

from bundlefs.base.errors import BundlefsError
from bundlefs.base.escapes import escaped

CAUSES = {
    "AccessControlListNotSupported": "the bucket has ACLs disabled, see --help",
    "AccessDenied": "the credentials lack s3:PutObject, s3:PutObjectAcl or s3:ListBucket",
    "NotImplemented": "often a missing s3:PutObjectAcl, or a server without ACLs",
    "NoSuchBucket": "make the bucket first, in the region of the AMI",
    "InternalError": "the server failed, not the bundle",
    "SlowDown": "the server has too much to do; let the tool make fewer transfers at a time",
    "InvalidManifest": "another account, region or key than the bundle was made for",
}


class UploadError(BundlefsError):
    """The upload failed; what is there stays, and the same command goes on."""


_lock = threading.RLock()
_drawn = ""
_CLEAR = "\r\x1b[K"


class SaidError(UploadError):
    """A program failed that has said why, and ended with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__("a program that was started failed")
        self.exit_code = code


def tell(text: str) -> None:
    """Print a line on stderr, above the one that changes if there is one."""
    with _lock:
        drawn = _drawn
        draw("")
        print(escaped(text), file=sys.stderr)
        draw(drawn)


def draw(text: str) -> None:
    """Show a line on a terminal in place of the one before; none to take it away."""
    global _drawn  # noqa: PLW0603  # there is one screen
    with _lock:
        if text or _drawn:
            print(f"{_CLEAR}{escaped(text)}", end="", file=sys.stderr, flush=True)
        _drawn = text


def need(program: str, why: str) -> None:
    """See that a program is installed.

    Raises:
        UploadError: it is not.
    """
    if not shutil.which(program):
        raise UploadError(f"{program} is not installed, and {why} needs it")


def ask(*words: str, unless: str | None = None) -> str:
    """Run a command that only reads, and return what it prints.

    Raises:
        UploadError: it failed, and did not say `unless`.
    """
    done = subprocess.run(
        words, capture_output=True, check=False, encoding="utf-8", errors="surrogateescape"
    )
    if done.returncode and not (unless and unless in done.stderr):
        raise UploadError(explained(words, done.returncode, done.stderr))
    return done.stdout


def explained(words: tuple[str, ...], code: int, text: str) -> str:
    """Return which step failed, and why if that is known."""
    why = [f"{name}: {cause}" for name, cause in CAUSES.items() if name in text]
    last = text.strip().splitlines()[-1:] or [f"exit code {code}"]
    return f"`{shlex.join(words[:3])}` failed: {(why or last)[0]}; run this again to go on"
