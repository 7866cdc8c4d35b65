"""What must outlast a mount, so that the next one gives the same bundle.

A `State` is the secret and the creation time, the image's data extents as they
were when its tar stream was laid out (a file system may answer otherwise later,
though no byte has changed), the index as far as the frontier got, and the
manifests that were rendered. `StateFile` keeps all that in a file.

*Terms* are what the bytes depend on besides: the image's stat, the parameters,
the codec's version. Where those of the file and of the mount differ, the old
bundle cannot be made any more: a new one begins, and the log says why. A file
that cannot be trusted is refused instead: an upload may be under way, and a new
key for the same bucket must be the user's own decision.

A lock file beside it keeps a second mount out; the kernel lets go of it when
the process ends, however it ends.

Concurrency: `save` may be called from any thread; a lock keeps it single.
"""

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bundlefs import statefile
from bundlefs.checks import whole
from bundlefs.errors import StateError
from bundlefs.index import Index
from bundlefs.keys import Secret
from bundlefs.spans import Span
from bundlefs.statefile import Contents

log = logging.getLogger(__name__)

_SECOND = 10**9
_LONGEST_NAME = 200
"""Bytes of an image's name in that of its state file: file systems take 255 in all."""

SAVE_SECONDS = 2.0
"""The least time between two saves while the index grows."""
_PATIENCE_SECONDS = 0.5
SAVE_SHARE = 50
"""A save may take a fiftieth of the time: a large index is saved less often."""


class State:
    """A state that lasts as long as the mount."""

    def __init__(
        self,
        extents: tuple[Span, ...] | None,
        secret: Secret | None = None,
        created_ns: int | None = None,
    ) -> None:
        self.extents = extents
        self.secret = secret or Secret.generate()
        self.created_ns = time.time_ns() if created_ns is None else whole("created_ns", created_ns)
        self.index = Index(self.secret.iv)
        self.manifests: dict[str, str] = {}

    def progress(self) -> None:
        """Take note that the index has grown."""

    def save(self) -> None:
        """Have what is known now outlast the mount."""

    def sign(self, holder: str) -> None:
        """Leave word of who uses it, for who finds it locked."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mount is going to be made of, to be held against a state file."""

    image: Path
    terms: Mapping[str, str]
    recipients: Mapping[str, str]
    extents: tuple[Span, ...] | None


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


class LockedError(StateError):
    """Another mount uses the state; `holder` says which."""

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(
            f"state file {path} is in use by {holder}; unmount that first, or give this one"
            " another --prefix or --state"
        )


def lock_path(path: Path) -> Path:
    """Give the lock file of a state file."""
    return path.with_name(f"{path.name}.lock")


class Lock:
    """Keeps a second mount off a state file, and tells it who is there."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StateError: another mount has it; the text says which.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (file := self._try(path, deadline)) is None:
            time.sleep(_PATIENCE_SECONDS / 20)
        self._file = file
        # Of a mount that was killed.
        self.sign("")

    @staticmethod
    def _try(path: Path, deadline: float) -> int | None:
        """Give the locked file, or None if it is worth another try."""
        try:
            name = lock_path(path)
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(
                f"state file {path}: cannot lock it: {error.strerror}; name another with --state"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # `forget` may have removed it in between: then a lock on it keeps nobody out.
            if os.path.samestat(os.fstat(file), name.stat(follow_symlinks=False)):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            holder = os.pread(file, 4096, 0).decode("utf-8", "surrogateescape")
            # Who has not signed is on the way in, or only looks (`in_use`).
            if holder or time.monotonic() > deadline:
                os.close(file)
                raise LockedError(path, holder or "a mount") from error
        os.close(file)
        return None

    def sign(self, holder: str) -> None:
        """Leave word of who has it, where there is room for it: nothing depends on it."""
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, holder.encode("utf-8", "surrogateescape"), 0)

    def close(self) -> None:
        """Release it. The file stays: who has it open already would lock what nobody finds."""
        self.sign("")
        os.close(self._file)


def in_use(path: Path) -> str | None:
    """Say who holds the lock of a state file, or give None."""
    if not lock_path(path).exists():
        return None
    try:
        Lock(path).close()
    except LockedError as error:
        return error.holder
    except StateError:
        return None
    return None


class StateFile(State):
    """A state in a file, locked for as long as it is open."""

    def __init__(self, path: Path, lock: Lock, contents: Contents) -> None:
        super().__init__(contents.extents, contents.secret, contents.created_ns)
        self._lock_file = lock
        self._path = path
        self._contents = contents
        self._saving = threading.Lock()
        self._saved = time.monotonic()
        self._pause = SAVE_SECONDS
        self._warned = False
        self.index.load(contents.index)
        self.manifests = dict(contents.manifests)

    def sign(self, holder: str) -> None:
        """Leave word of who uses it, for who finds it locked."""
        self._lock_file.sign(holder)

    def progress(self) -> None:
        """Save if the last time is long enough ago, or if all is known now."""
        if self.index.totals or time.monotonic() - self._saved >= self._pause:
            self.save()

    def save(self) -> None:
        """Save. A failure is logged once: what it costs is time after a crash, no bytes."""
        try:
            self.write()
        except OSError as error:
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
        """Write the file; raises OSError."""
        with self._saving:
            start = time.monotonic()
            manifests = dict(self.manifests)
            now = replace(self._contents, index=self.index.dump(), manifests=manifests)
            statefile.replace(self._path, now.encode())
            self._saved = time.monotonic()
            self._pause = max(SAVE_SECONDS, SAVE_SHARE * (self._saved - start))

    def close(self) -> None:
        """Save and let go of the lock."""
        self.save()
        self._lock_file.close()


def open_file(path: Path, wanted: Wanted, *, fresh: bool) -> StateFile:
    """Take up the state in a file, or begin a new one there.

    Raises:
        StateError: the file is in use, cannot be trusted or cannot be written.
    """
    statefile.make_folder(path.parent)
    lock = Lock(path)
    try:
        statefile.sweep(path)
        old = _outdated(path) if fresh else statefile.read(path)
        contents = _begun(wanted, old) if fresh or not old else _continued(old, wanted)
        state = StateFile(path, lock, contents)
        # Before anyone sees a byte: what is uploaded must be there to be continued.
        state.write()
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


def _begun(wanted: Wanted, old: Contents | None) -> Contents:
    # A sink skips what is not newer, even where the clock has been set back meanwhile.
    after = old.created_ns + _SECOND if old else 0
    state = State(wanted.extents, created_ns=max(time.time_ns(), after))
    return Contents(
        image=str(wanted.image),
        terms=dict(wanted.terms),
        recipients=dict(wanted.recipients),
        secret=state.secret,
        created_ns=state.created_ns,
        extents=wanted.extents,
        index=state.index.dump(),
        manifests={},
    )


def _continued(old: Contents, wanted: Wanted) -> Contents:
    """Go on with the old bundle if it can still be made, else begin a new one and say why."""
    reasons = [*differences(old.terms, wanted.terms), *_other_keys(old, wanted)]
    if reasons:
        log.warning(
            "%s: a new bundle with a new key, since %s; upload everything anew",
            wanted.image,
            "; ".join(reasons),
        )
        return _begun(wanted, old)
    log.info("%s: going on with the bundle of %s", wanted.image, _when(old.created_ns))
    recipients = {**old.recipients, **wanted.recipients}
    return replace(old, image=str(wanted.image), recipients=recipients)


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say what is different, in words: `level was 6, is 9`."""
    names = [*old, *(name for name in new if name not in old)]
    return [
        f"{name} was {old.get(name, 'not known')}, is {new.get(name, 'not known')}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _other_keys(old: Contents, wanted: Wanted) -> list[str]:
    return [
        f"the EC2 key of {name} is another"
        for name, key in wanted.recipients.items()
        if old.recipients.get(name, key) != key
    ]


def _when(created_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created_ns / 1e9))


def forget(path: Path) -> None:
    """Remove a state file, or one of access points.

    Raises:
        StateError: a mount uses it, or it cannot be removed.
    """
    lock = Lock(path)
    try:
        path.unlink()
        statefile.sweep(path)
        with suppress(OSError):
            lock_path(path).unlink()
    except OSError as error:
        raise StateError(f"state file {path}: {error.strerror}") from error
    finally:
        lock.close()
