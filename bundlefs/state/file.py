r"""The file that a state is kept in: its format, whether to trust it, how it is replaced.

    bundlefs-state 1\\n
    header: one line of JSON, with the lengths of the arrays behind it\\n
    arrays: offsets, CRCs and CBC states of the index, extents of the image; native byte order
    SHA-256 of all that comes before: 32 bytes

It holds the AES key, so it has mode 0600. It is written without a name, synced and
renamed over the old one: there is always a whole one, the old or the new.
"""

import errno
import hashlib
import json
import logging
import os
import stat
from array import array
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bundlefs.base import files
from bundlefs.base.errors import StateError
from bundlefs.base.files import Draft, write_all
from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import IndexDump, Totals

log = logging.getLogger(__name__)

VERSION = 1
_MAGIC = b"bundlefs-state "
_CHECKSUM = 32
_UNFINISHED = ".new"
_REMEDY = "--fresh starts a new bundle with a new key, and everything has to be uploaded anew"


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a state file holds.

    `terms` and `recipients` map what a person understands to what it was: parameters, and the
    fingerprint of the key of each manifest.

    Attributes:
        shown_ns: the time that the files show, or 0 while that is `created_ns`.
        taken_ns: when it became the current one the last time, or 0 while that is `created_ns`.
        untouched: nobody can have read a byte of it, ever.
        gone_ns: when the last of those that are kept no longer, and were read, was `taken`.
    """

    image: str
    terms: dict[str, str]
    recipients: dict[str, str]
    secret: Secret
    created_ns: int
    extents: tuple[Span, ...] | None = field(repr=False)
    index: IndexDump = field(repr=False)
    manifests: dict[str, str] = field(repr=False)
    shown_ns: int = 0
    taken_ns: int = 0
    untouched: bool = False
    gone_ns: int = 0

    @property
    def shown(self) -> int:
        """The time that the files show, in ns since 1970."""
        return self.shown_ns or self.created_ns

    @property
    def taken(self) -> int:
        """When it became the current one the last time, in ns since 1970."""
        return self.taken_ns or self.created_ns

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        spans = [edge for span in self.extents or () for edge in (span.start, span.stop)]
        arrays = (
            self.index.offsets,
            self.index.crcs,
            self.index.states,
            array("Q", spans).tobytes(),
        )
        header = {
            "image": self.image,
            "terms": self.terms,
            "recipients": self.recipients,
            "key": self.secret.key.hex(),
            "iv": self.secret.iv.hex(),
            "created_ns": self.created_ns,
            "shown_ns": self.shown_ns,
            "taken_ns": self.taken_ns,
            "untouched": self.untouched,
            "gone_ns": self.gone_ns,
            "sparse": self.extents is not None,
            "part_digests": self.index.part_digests,
            "totals": asdict(self.index.totals) if self.index.totals else None,
            "manifests": self.manifests,
            "arrays": [len(data) for data in arrays],
        }
        line = json.dumps(header).encode()
        body = b"".join((_MAGIC, b"%d\n" % VERSION, line, b"\n", *arrays))
        return body + hashlib.sha256(body).digest()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the bytes of a file.

        Raises:
            ValueError: they are damaged, or of a version that is not known here.
        """
        version, line, rest = _opened(data)
        if version != VERSION:
            raise ValueError(f"it is of version {version}; this bundlefs knows version {VERSION}")
        header = json.loads(line)
        return cls._from(header, list(_cut(rest, header["arrays"])))

    @classmethod
    def _from(cls, header: dict[str, Any], arrays: list[bytes]) -> Self:
        offsets, crcs, states, edges = arrays
        spans = array("Q", edges)
        totals = Totals(**header["totals"]) if header["totals"] else None
        return cls(
            image=header["image"],
            terms=header["terms"],
            recipients=header["recipients"],
            secret=Secret(bytes.fromhex(header["key"]), bytes.fromhex(header["iv"])),
            created_ns=header["created_ns"],
            extents=tuple(map(Span, spans[::2], spans[1::2])) if header["sparse"] else None,
            index=IndexDump(offsets, crcs, states, tuple(header["part_digests"]), totals),
            manifests=header["manifests"],
            # Files of earlier versions lack these.
            shown_ns=header.get("shown_ns", 0),
            taken_ns=header.get("taken_ns", 0),
            untouched=header.get("untouched", False),
            gone_ns=header.get("gone_ns", 0),
        )


def _opened(data: bytes) -> tuple[int, bytes, bytes]:
    first, _, after = data.partition(b"\n")
    number = first.removeprefix(_MAGIC)
    if not first.startswith(_MAGIC) or not number.isdigit():
        raise ValueError("it is not a state file of bundlefs, or is damaged")
    # A later version may have its checksum elsewhere: it is named first.
    if int(number) == VERSION and hashlib.sha256(data[:-_CHECKSUM]).digest() != data[-_CHECKSUM:]:
        raise ValueError("it is damaged or cut short (its checksum does not fit)")
    line, _, rest = after[:-_CHECKSUM].partition(b"\n")
    return int(number), line, rest


def _cut(data: bytes, lengths: list[int]) -> list[bytes]:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    return pieces


def is_one(path: Path) -> bool:
    """Tell whether a file begins as a state file does."""
    with suppress(OSError), os.fdopen(_opened_file(path, 0), "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def _opened_file(path: Path, flags: int) -> int:
    """Open a file to read; a FIFO must not make us wait for its writer."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)


def read(path: Path) -> Contents | None:
    """Read a state file, or give None if there is none.

    Raises:
        StateError: it cannot be read, or must not be trusted.
    """
    data = read_private(path)
    if data is None:
        return None
    # `--fresh` overwrites no file that may be something else: it might be the image.
    if data and not data.startswith(_MAGIC):
        raise StateError(
            f"state file {path}: it is none of bundlefs, or its beginning is damaged. An upload of"
            " this bundle may be under way: if not, remove it; or name another with --state"
        )
    try:
        return Contents.decode(data)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error) if type(error) is ValueError else "it is damaged"
        raise StateError(
            f"state file {path}: {reason}. An upload of this bundle may be under way: {_REMEDY}"
        ) from error


class UntrustedError(Exception):
    """A file cannot be read, or others have access to it.

    Attributes:
        exposed: whether others may read it.
    """

    def __init__(self, reason: str, *, exposed: bool = False) -> None:
        super().__init__(reason)
        self.exposed = exposed


def read_private(path: Path) -> bytes | None:
    """Read a state file that nobody else may have written or read, or give None if there is none.

    Raises:
        StateError: it cannot be read, or others have access to it.
    """
    try:
        return read_trusted(path)
    except UntrustedError as error:
        remedy = "; name another with --state"
        if error.exposed:
            remedy = f" and it holds the bundle's key; if nobody did, chmod 600 it. Else {_REMEDY}"
        raise StateError(f"state file {path}: {error}{remedy}") from error


def read_trusted(path: Path) -> bytes | None:
    """Read a file that nobody else may have written or read, or give None if there is none.

    Raises:
        UntrustedError: it cannot be read, or others have access to it.
    """
    try:
        handle = _opened_file(path, os.O_NOFOLLOW)
        try:
            _require_private(os.fstat(handle))
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise UntrustedError(str(reason)) from error


def _require_private(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise UntrustedError(
            f"it belongs to user {status.st_uid}, not to you ({os.geteuid()}); chown it if you"
            " trust it"
        )
    if status.st_mode & 0o077:
        mode = status.st_mode & 0o777
        raise UntrustedError(f"others may open it (mode {mode:04o})", exposed=True)


def make_folder(folder: Path, *, ours: bool = False) -> None:
    """Make a private folder, if it is not there; `ours` tells that it is for states alone.

    Raises:
        StateError: it cannot be made, or others may change what is in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_no_other_writers(folder, folder.stat(), ours=ours)
    except OSError as error:
        raise StateError(
            f"cannot make the folder {folder} for the state: {error.strerror};"
            " name another place with --state"
        ) from error


def _require_no_other_writers(folder: Path, status: os.stat_result, *, ours: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    # Many users have a group of their own, which may write wherever they may.
    own_group = status.st_gid == os.getegid() and not ours
    others = 0o002 if own_group else 0o022
    # In a sticky folder nobody removes or renames what is somebody else's.
    if mode & others and not mode & stat.S_ISVTX:
        raise StateError(
            f"state folder {folder}: others may write to it (mode {mode:04o}), and so remove a"
            " bundle's key or put another in its place: chmod go-w it, or name another place with"
            " --state"
        )
    if ours and mode & 0o055:
        log.warning(
            "state folder %s: others may look into it (mode %04o); chmod 700 it", folder, mode
        )


def replace(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 durably and in one step.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    with Draft(path, _UNFINISHED) as draft:
        write_all(draft.file, data, 0)
        draft.publish(replace=True)


def sweep(path: Path) -> None:
    """Remove what a process that was killed in `replace` has left: it holds the key, too.

    Only who has locked `path` may do this.
    """
    files.sweep(path, _UNFINISHED)
