"""What the tests of this folder look up in state files themselves."""

from pathlib import Path

from bundlefs.keys.rsa import Secret
from bundlefs.state import file as statefile


def secret_of(path: Path) -> Secret:
    """Give the secret that is in a state file."""
    contents = statefile.read(path)
    assert contents
    return contents.secret
