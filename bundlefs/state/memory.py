"""The state of a bundle, in memory: it ends with the mount.

A `State` is the secret and the creation time, the extents of the image's data as they were when
its tar stream was laid out (a file system may answer otherwise later, though no byte has changed),
the index as far as the frontier has got, and the manifests that were rendered.

Concurrency: as the index says; a manifest is added by a single operation of a dict.
"""

import time

from bundlefs.base.checks import whole
from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import Index


class State:
    """A state that lasts as long as the mount.

    Attributes:
        created_ns: when the bundle was begun; it is in the tar header, and so in the bytes.
        shown_ns: the time that its files show, by which copy tools tell what is newer.
    """

    def __init__(
        self,
        extents: tuple[Span, ...] | None,
        secret: Secret | None = None,
        created_ns: int | None = None,
    ) -> None:
        self.extents = extents
        self.secret = secret or Secret.generate()
        self.created_ns = time.time_ns() if created_ns is None else whole("created_ns", created_ns)
        self.shown_ns = self.created_ns
        self.index = Index(self.secret.iv)
        self.manifests: dict[str, str] = {}

    def begin(self) -> None:
        """Take note that somebody is going to read the bundle; called before the first byte."""

    def progress(self) -> None:
        """Take note that the index has grown."""

    def save(self) -> None:
        """Make what is known now outlast the mount."""

    def sign(self, holder: str) -> None:
        """Leave word of who uses it, for those who find it locked."""

    def close(self) -> None:
        """Let go of it."""
