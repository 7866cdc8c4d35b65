"""A state that is kept in a file: it is saved as it grows, and outlasts the mount.

Concurrency: `save` may be called from any thread; a lock keeps it single.
"""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

from bundlefs.base.errors import StateError
from bundlefs.state import file as statefile
from bundlefs.state import kept
from bundlefs.state.format import StateContents
from bundlefs.state.lock import Lock
from bundlefs.state.memory import State

log = logging.getLogger(__name__)

SAVE_SECONDS = 2.0
"""The least time between two saves while the index grows."""
SAVE_SHARE = 50
"""A save may take a fiftieth of the time: a large index is saved less often."""


class StateFile(State):
    """A state in a file, locked for as long as it is open.

    Attributes:
        writes: how often the file was written.
    """

    def __init__(self, path: Path, lock: Lock, contents: StateContents) -> None:
        super().__init__(contents.extents, contents.secret, contents.created_ns)
        self.shown_ns = contents.shown
        self.writes = 0
        self._lock_file = lock
        self._path = path
        self._contents = contents
        self._written: tuple[object, ...] | None = None
        self._saving = threading.Lock()
        self._saved = time.monotonic()
        self._pause = SAVE_SECONDS
        self._warned = False
        self.index.load(contents.index)
        self.manifests = dict(contents.manifests)

    def sign(self, holder: str) -> None:
        """Leave word of who uses it, for those who find it locked."""
        self._lock_file.sign(holder)

    def begin(self) -> None:
        """Note on the disk that the bundle is going to be read.

        Raises:
            StateError: that failed, and going back to an earlier bundle would not be safe.
        """
        if not self._contents.untouched:
            return
        self._contents = replace(self._contents, untouched=False)
        try:
            self.write()
        except OSError as error:
            if kept.beside(self._path):
                raise StateError(
                    f"cannot note in {self._path} that this bundle is read from now on:"
                    f" {error.strerror}. Another one could not be taken up again safely; mend"
                    " that and mount again, or name another state file"
                ) from error
            self._failed(error)

    def progress(self) -> None:
        """Save if the last save is long enough ago, or if all is known now."""
        if self.index.totals or time.monotonic() - self._saved >= self._pause:
            self.save()

    def save(self) -> None:
        """Save. A failure is logged once: it costs time after a crash, and no bytes."""
        try:
            self.write()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not self._warned:
            log.warning(
                "cannot save to %s: %s; after a crash, what was made since is made again",
                self._path,
                error.strerror,
            )
        self._warned = True
        # Not at each block: the disk is full, and the frontier waits for this.
        self._saved = time.monotonic()

    def write(self) -> None:
        """Write the file unless it holds all of this already.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        with self._saving:
            now = self._grown()
            if now == self._written:
                return
            start = time.monotonic()
            manifests = dict(self.manifests)
            contents = replace(
                self._contents,
                index=self.index.dump(),
                manifests=manifests,
                untouched=self._contents.untouched and not self.index.blocks,
            )
            statefile.replace(self._path, contents.encode())
            self.writes += 1
            self._written = now
            self._saved = time.monotonic()
            self._pause = max(SAVE_SECONDS, SAVE_SHARE * (self._saved - start))

    def _grown(self) -> tuple[object, ...]:
        """Return what tells one version of the file from the next: all of it only grows."""
        index = self.index
        totals = index.totals is not None
        untouched = self._contents.untouched
        return index.blocks, len(index.part_digests), totals, frozenset(self.manifests), untouched

    def close(self) -> None:
        """Save and let go of the lock."""
        self.save()
        self._lock_file.close()
