"""What must outlast a mount, so that the next one gives the same bundle.

A `State` is the secret and the creation time, the image's data extents as they
were when its tar stream was laid out (a file system may answer otherwise later,
though no byte has changed), the index as far as the frontier got, and the
manifests that were rendered. `StateFile` keeps all that in a file.

*Terms* are what the bytes depend on besides: the image's stat, the parameters,
the codec's version. Where those of the file and of the mount differ, another
bundle is asked for: an earlier one goes on or a new one begins, and the log says why. A file
that cannot be trusted is refused instead: an upload may be under way, and a new
key for the same bucket must be the user's own decision.

The file holds the bundle that was asked for last. The ones that were asked for before
lie beside it (`statekept`), so that a mistyped option costs nothing: the right ones go on.

Concurrency: `save` may be called from any thread; a lock keeps it single.
"""

import hashlib
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bundlefs.base.checks import whole
from bundlefs.base.errors import StateError
from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state import choice as statechoice
from bundlefs.state import file as statefile
from bundlefs.state import kept as statekept
from bundlefs.state.choice import Wanted, differences
from bundlefs.state.file import Contents
from bundlefs.state.index import Index
from bundlefs.state.kept import Kept
from bundlefs.state.lock import Lock, LockedError, in_use, lock_path

__all__ = [
    "Lock",
    "LockedError",
    "State",
    "StateFile",
    "Wanted",
    "default_folder",
    "default_path",
    "differences",
    "forget",
    "in_use",
    "lock_path",
    "open_file",
    "points_path",
]

log = logging.getLogger(__name__)

_LONGEST_NAME = 200
"""Bytes of an image's name in that of its state file: file systems take 255 in all."""

SAVE_SECONDS = 2.0
"""The least time between two saves while the index grows."""
SAVE_SHARE = 50
"""A save may take a fiftieth of the time: a large index is saved less often."""


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
        """Have what is known now outlast the mount."""

    def sign(self, holder: str) -> None:
        """Leave word of who uses it, for who finds it locked."""

    def close(self) -> None:
        """Let go of it."""


def default_folder() -> Path:
    """Give the folder of the state files: $XDG_STATE_HOME/bundlefs, or the system's for root."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative one is to be ignored [XDG Base Directory Specification].
    if home.is_absolute():
        return home / "bundlefs"
    # A user without a home cannot write there either, and is told to use --state.
    with suppress(RuntimeError):
        if os.geteuid() != 0:
            return Path.home() / ".local" / "state" / "bundlefs"
    return Path("/var/lib/bundlefs")


def default_path(image: Path, prefix: str) -> Path:
    """Give the state file of an image under a prefix.

    A file goes by its real path. A block device goes by the name it is given: where
    /dev/VOLUMES/NAME points to may be another device after a reboot.
    """
    # realpath() has an answer for links in a circle too.
    named = os.path.abspath if image.is_block_device() else os.path.realpath
    where = Path(named(image))
    place = os.fsencode(where) + b"\0" + os.fsencode(prefix)
    name = os.fsdecode(os.fsencode(where.name)[:_LONGEST_NAME])
    return default_folder() / f"{name}-{hashlib.sha256(place).hexdigest()[:16]}.state"


def points_path(image: Path) -> Path:
    """Give the file for the access points of a compressed image, one for all its prefixes."""
    return default_path(image, "").with_suffix(".points")


class StateFile(State):
    """A state in a file, locked for as long as it is open.

    Attributes:
        writes: how often the file was written.
    """

    def __init__(self, path: Path, lock: Lock, contents: Contents) -> None:
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
        """Leave word of who uses it, for who finds it locked."""
        self._lock_file.sign(holder)

    def begin(self) -> None:
        """Note on the disk that the bundle is going to be read.

        Raises:
            StateError: that failed, and who goes back to an earlier bundle would not learn of it.
        """
        if not self._contents.untouched:
            return
        self._contents = replace(self._contents, untouched=False)
        try:
            self.write()
        except OSError as error:
            if statekept.beside(self._path):
                raise StateError(
                    f"cannot note in {self._path} that this bundle is read from now on:"
                    f" {error.strerror}. Another one could not be taken up again safely; mend"
                    " that and mount again, or name another state file"
                ) from error
            self._failed(error)

    def progress(self) -> None:
        """Save if the last time is long enough ago, or if all is known now."""
        if self.index.totals or time.monotonic() - self._saved >= self._pause:
            self.save()

    def save(self) -> None:
        """Save. A failure is logged once: what it costs is time after a crash, no bytes."""
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
        """Write the file if it does not hold all of this yet; raises OSError."""
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


def open_file(path: Path, wanted: Wanted, *, fresh: bool) -> StateFile:
    """Take up the state in a file or one that is kept beside it, or begin a new one there.

    Raises:
        StateError: the file is in use, cannot be trusted or cannot be written.
    """
    statefile.make_folder(path.parent, ours=path.parent == default_folder())
    lock = Lock(path)
    try:
        statefile.sweep(path)
        current = _outdated(path) if fresh else statefile.read(path)
        state = _opened(path, lock, current, wanted, fresh=fresh)
    except OSError as error:
        lock.close()
        raise StateError(
            f"cannot write the state file {path}: {error.strerror}; name another place with"
            " --state, or give --state none and start anew after each unmount"
        ) from error
    except BaseException:
        lock.close()
        raise
    return state


def _opened(
    path: Path, lock: Lock, current: Contents | None, wanted: Wanted, *, fresh: bool
) -> StateFile:
    gone: list[Kept] = []
    if current and not fresh and not statechoice.reasons(current, wanted):
        contents = statechoice.continued(current, wanted)
    else:
        kept = statekept.read(path, current, drop_damaged=fresh)
        contents, gone = statechoice.switched(current, kept, wanted, fresh=fresh)
        known = [one.contents for one in kept] + ([current] if current else [])
        # Where only the key is to be another, nobody can ever ask for the old bundle again.
        if current and statechoice.reasons(current, wanted):
            statekept.put_aside(path, current)
            kept.append(Kept(statekept.place(path, current), current))
        rest = [one for one in kept if one not in gone]
        dropped = statekept.too_many(rest, statechoice.lost(wanted))
        gone += dropped
        contents = statechoice.remembering(
            contents, known, [one.contents for one in dropped], fresh=fresh
        )
    state = StateFile(path, lock, contents)
    # Before anyone sees a byte: what is uploaded must be there to be continued.
    state.write()
    statekept.drop(gone)
    return state


def _outdated(path: Path) -> Contents | None:
    """Give what --fresh overwrites, as far as it can be read.

    Raises:
        StateError: it is not for us to overwrite.
    """
    if path.is_file() and path.stat().st_size and not statefile.is_one(path):
        raise StateError(
            f"state file {path}: it is none of bundlefs, or its beginning is damaged, and --fresh"
            " does not overwrite it: remove it, or name another with --state"
        )
    with suppress(StateError):
        return statefile.read(path)
    return None


def forget(path: Path) -> None:
    """Remove a state file and all that are kept beside it, one of those, or access points.

    Raises:
        StateError: a mount uses it, or it cannot be removed.
    """
    lock = Lock(path)
    try:
        statekept.remember(path)
        path.unlink()
        statefile.sweep(path)
        for other in statekept.beside(path):
            other.unlink()
        if not statekept.owner(path).exists():
            lock.remove()
    except OSError as error:
        raise StateError(f"state file {path}: {error.strerror}") from error
    finally:
        lock.close()
