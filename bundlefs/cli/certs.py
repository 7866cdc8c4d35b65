"""What `--ec2-cert` gives: the keys of regions and clouds that bundlefs does not know."""

from collections.abc import Sequence
from pathlib import Path

from bundlefs.keys.regions import Cert


def read_certs(texts: Sequence[str]) -> list[Cert]:
    """Read what --ec2-cert gives, `[REGION=]PEM` each: the region or None, and the key."""
    certs: list[Cert] = []
    if not texts:
        return certs
    from bundlefs.keys.files import load_public_key  # noqa: PLC0415  # slow, and seldom needed

    for text in texts:
        region, separator, path = text.partition("=")
        # A path may have '=' in it as well; what exists is a path.
        if not separator or Path(text).exists():
            region, path = "", text
        certs.append((region or None, load_public_key(Path(path))))
    return certs
