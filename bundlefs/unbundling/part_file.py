"""One part file of a bundle: proven whole by its digest, and the same at each read from then on.

A part is digested as a whole before any byte of it is handed out, and the digest of each run of it
is kept. What is read later is a whole run, whose digest must be what it was then: times and inode
numbers are not enough, since a write through a mapping or a server's cache may leave no trace in
them. Where they do show a change, it is found sooner, and the part is digested anew. If the digest
holds, it is the same part, which was moved or touched. If not, the part was changed, and stays
refused: what was read of it before belongs to another file.

A part that never was whole may be fetched anew, so it is tried again at each read.

Concurrency: any thread may read. A lock sees to it that one thread at a time digests.
"""

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bundlefs.base.descriptors import Descriptors
from bundlefs.base.errors import BundleChangedError, BundleError
from bundlefs.base.files import read_fully
from bundlefs.base.spans import Span, ceil_div
from bundlefs.image.identity import Identity, settle

log = logging.getLogger(__name__)

RUN = 256 << 10
"""Bytes that are read and proven together, at multiples of it.

The kernel asks servers for no less, and reads ahead. Of a larger run, most would be read in vain
by somebody who reads here and there.
"""

_DIGEST = hashlib.sha1(usedforsecurity=False).digest_size
_UNKNOWN = bytes(_DIGEST)
_MOST_ALARMS = 3
_TRIES = _MOST_ALARMS + 2


class _DamagedError(BundleError):
    """The part can be read, and is not what the manifest says."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the part was when it was whole: the file's identity, and the digest of each run.

    Where the digest of the part is not compared, that of a run is noted when it is first read.
    """

    identity: Identity
    digests: bytearray = field(repr=False)

    def holds(self, run: int, data: bytes) -> bool:
        """Return whether a run has the digest that it had; note its digest if none is known."""
        place = slice(run * _DIGEST, (run + 1) * _DIGEST)
        found = hashlib.sha1(data, usedforsecurity=False).digest()
        if self.digests[place] == _UNKNOWN:
            self.digests[place] = found
        return self.digests[place] == found


class PartFile:
    """A part of `size` bytes.

    Args:
        path: its file.
        size: bytes, as they were when the bundle was opened.
        sha1: what its digest must be; None to take the part as it is found.
        names: of the parts, by digest, to recognise a part under the name of another.
        descriptors: where its file is kept open.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        sha1: str | None,
        names: Mapping[str, str],
        descriptors: Descriptors,
    ) -> None:
        self._path = path
        self._size = size
        self._sha1 = sha1
        self._names = names
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._proof: _Proof | None = None
        self._taken = False
        self._changed = ""
        self._alarms = 0

    def check(self) -> None:
        """Digest the part unless that was done.

        Raises:
            BundleChangedError: it was whole, and was changed.
            BundleError: it cannot be read, or is not what the manifest says; the text names it.
        """
        with self._lock:
            if not self._taken or self._changed:
                self._proven()

    def take(self, into: memoryview) -> None:
        """Read the whole part to the start of `into`, and digest it unless that was done.

        Whoever reads of it later has it digested anew: nothing is kept but that it was whole.

        Raises:
            BundleChangedError, BundleError: as `check`.
        """
        with self._lock:
            new = not self._proof and not self._changed and self._sha1 is not None
            if new:
                self._prove(into)
                self._taken = True
        if not new:
            for run in range(ceil_div(self._size, RUN)):
                span = self._span(run)
                into[span.start : span.stop] = self.read(run)

    def read(self, run: int) -> bytes:
        """Return a run of the part, or what is left of it at the end.

        Raises:
            BundleChangedError, BundleError: as `check`.
        """
        doubts: list[str] = []
        for _ in range(_TRIES):
            with self._lock:
                proof = self._proven()
            data, doubts = self._look(run, proof)
            if not doubts:
                return data
            self._settle_doubts(proof, doubts)
        raise BundleError(f"part {self._path} changes all the time: {', '.join(doubts)}")

    # Of these, `_look` and `_settle_doubts` are called without the lock, and the others with it.

    def _proven(self) -> _Proof:
        if self._changed:
            raise BundleChangedError(self._changed)
        if self._proof is None:
            self._proof = self._prove()
        return self._proof

    def _prove(self, into: memoryview | None = None) -> _Proof:
        """Digest the part; what is read is kept `into`, or its digests are in what is returned."""
        try:
            with self._descriptors.borrow(self._path) as file:
                return self._proof_of(file, into)
        except (OSError, BundleError) as error:
            self._descriptors.drop(self._path)  # another file may have its name next time
            if isinstance(error, OSError):
                raise BundleError(f"part {self._path}: {error.strerror}") from error
            raise

    def _proof_of(self, file: int, into: memoryview | None) -> _Proof:
        proof = _Proof(Identity.of(file), bytearray(_DIGEST * ceil_div(self._size, RUN)))
        settle(proof.identity)
        if proof.identity.size != self._size:
            raise _DamagedError(
                f"part {self._path} has {proof.identity.size} bytes and had {self._size} when the"
                " bundle was opened"
            )
        if self._sha1 is not None:
            self._require_digest(self._sha1, self._digest(file, proof, into), proof, file)
        return proof

    def _digest(self, file: int, proof: _Proof, into: memoryview | None) -> str:
        whole = hashlib.sha1(usedforsecurity=False)
        for run in range(ceil_div(self._size, RUN)):
            span = self._span(run)
            data = _read(file, span)
            whole.update(data)
            if into is None:
                proof.holds(run, data)
            else:
                into[span.start : span.start + len(data)] = data
        return whole.hexdigest()

    def _require_digest(self, sha1: str, found: str, proof: _Proof, file: int) -> None:
        if found == sha1:
            return
        if changes := proof.identity.changes(Identity.of(file)):
            raise BundleError(
                f"part {self._path} was changed while it was digested: {', '.join(changes)}"
            )
        other = self._names.get(found)
        swapped = f" (it has the bytes of {other})" if other else ""
        raise _DamagedError(
            f"part {self._path.name} is damaged{swapped}: its SHA-1 is {found}, the manifest says"
            f" {sha1}; fetch it anew"
        )

    def _span(self, run: int) -> Span:
        return Span(run * RUN, min((run + 1) * RUN, self._size))

    def _look(self, run: int, proof: _Proof) -> tuple[bytes, list[str]]:
        """Read a run; return it, and whatever is not as it was when the part was whole."""
        span = self._span(run)
        try:
            with self._descriptors.borrow(self._path) as file:
                data = _read(file, span)
                now = Identity.of(file)  # after the read, so that no change can slip in between
        except OSError as error:
            self._descriptors.drop(self._path)
            raise BundleError(f"part {self._path}: {error.strerror}") from error
        doubts = proof.identity.changes(now) if self._alarms < _MOST_ALARMS else []
        if len(data) != span.length or not proof.holds(run, data):
            doubts.append(f"bytes {span.start} to {span.stop} are not what they were")
        return data, doubts

    def _settle_doubts(self, proof: _Proof, doubts: list[str]) -> None:
        """Find out whether the part is still the one that was whole; if not, refuse it for good."""
        self._descriptors.drop(self._path)
        with self._lock:
            if self._proof is not proof or self._changed:
                return  # another thread has done so
            what = ", ".join(doubts)
            if self._sha1 is None:
                self._refuse(
                    f"{what}; without digests that cannot be told from an edit, even where the"
                    " storage moves times on its own"
                )
            try:
                self._proof = self._prove()
            except _DamagedError as error:
                self._refuse(f"{what}; {error}")
            self._count_alarm(what)

    def _count_alarm(self, what: str) -> None:
        """Log a false alarm; after some of them, what the file system says no longer counts."""
        self._alarms += 1
        log.info("part %s: %s, and its digest holds", self._path, what)
        if self._alarms == _MOST_ALARMS:
            log.warning(
                "the file system changes what it says of part %s (%s), though no byte of it is"
                " another: from now on its bytes alone are compared",
                self._path,
                what,
            )

    def _refuse(self, what: str) -> None:
        self._changed = (
            f"part {self._path} was changed after it was first read: {what}. It stays refused:"
            " put it back as it was, and open the bundle anew"
        )
        raise BundleChangedError(self._changed)


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file as it is now.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, partial(hashlib.sha1, usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise BundleError(f"part {path}: {error.strerror}") from error


def _read(file: int, span: Span) -> bytes:
    return read_fully(file, span.start, span.length)
