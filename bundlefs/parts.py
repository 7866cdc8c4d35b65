"""The part files of a bundle that is there: one stream of sealed bytes, by offset.

A manifest gives names and digests, not sizes; those are the files' own, and
their sum must be the manifest's. An empty last part is fine: euca2ools writes
one after an exact multiple of the part size.

A part is digested as a whole before the first byte of it is handed out.

Concurrency: any thread may read. A lock for each part keeps its digest single.
"""

import hashlib
import os
import stat
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from bundlefs.errors import BundleError
from bundlefs.manifest_reader import BundleManifest
from bundlefs.spans import Span

_PIECE = 1 << 20


class PartFiles:
    """The parts that `manifest` names, in `folder`.

    Raises:
        BundleError: a part is missing or no plain file, or the sizes do not add up.
    """

    def __init__(self, manifest: BundleManifest, folder: Path, *, check: bool = True) -> None:
        self.checked = check
        self._entries = manifest.parts
        self._folder = folder
        sizes = [_size(folder / entry.filename) for entry in manifest.parts]
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts[-1]
        self._unchecked = {number: threading.Lock() for number in range(len(sizes) if check else 0)}
        if manifest.bundled_size is not None and self.size != manifest.bundled_size:
            raise BundleError(
                f"the parts in {folder} have {self.size} bytes together and the manifest says"
                f" {manifest.bundled_size}: {self._suspect(sizes)}"
            )

    def _suspect(self, sizes: list[int]) -> str:
        """Name the part that has the wrong size, to say where to look.

        No part's own size is known, so it is one whose size is not that of most others, or the
        last, and whose digest is not the manifest's.
        """
        *whole, _ = sizes
        shared = Counter(whole)
        odd = [at for at, size in enumerate(whole) if 2 * shared[size] <= len(whole) + 1]
        for number in (*odd, len(whole)):
            entry = self._entries[number]
            if self._digest(number) != entry.digest:
                return f"{entry.filename} has {sizes[number]} bytes and is damaged"
        return "no part stands out by its size"

    def __len__(self) -> int:
        return len(self._entries)

    def span(self, number: int) -> Span:
        """Give where a part lies in the sealed stream."""
        return Span(self._starts[number], self._starts[number + 1])

    def check(self, number: int) -> None:
        """Digest a part, unless that is done.

        Raises:
            BundleError: it is not what the manifest says; the text names it.
        """
        lock = self._unchecked.get(number)
        if lock is None:
            return
        with lock:
            if number in self._unchecked:
                self._require_digest(number)
                del self._unchecked[number]

    def _require_digest(self, number: int) -> None:
        entry, found = self._entries[number], self._digest(number)
        if found != entry.digest:
            raise BundleError(
                f"part {entry.filename} is damaged{self._swapped(found)}: its SHA-1 is"
                f" {found}, the manifest says {entry.digest}; fetch it anew"
            )

    def _digest(self, number: int) -> str:
        found = hashlib.sha1(usedforsecurity=False)
        for piece in self._pieces(number, self.span(number)):
            found.update(piece)
        return found.hexdigest()

    def _swapped(self, digest: str) -> str:
        for entry in self._entries:
            if entry.digest == digest:
                return f" (it has the bytes of {entry.filename})"
        return ""

    def read(self, span: Span) -> bytes:
        """Give exactly these bytes of the sealed stream, of checked parts alone."""
        pieces: list[bytes] = []
        number = bisect_right(self._starts, span.start) - 1
        while number < len(self) and self._starts[number] < span.stop:
            wanted = span.clip(self.span(number))
            if wanted.length:
                self.check(number)
                pieces += self._pieces(number, wanted)
            number += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pieces(self, number: int, span: Span) -> Iterator[bytes]:
        path = self._folder / self._entries[number].filename
        inside = span.shift(-self._starts[number])
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                for start in range(inside.start, inside.stop, _PIECE):
                    yield _pread(file, path, Span(start, min(start + _PIECE, inside.stop)))
            finally:
                os.close(file)
        except OSError as error:
            raise BundleError(f"part {path}: {error.strerror}") from error


def _pread(file: int, path: Path, span: Span) -> bytes:
    data = os.pread(file, span.length, span.start)
    while len(data) < span.length:
        more = os.pread(file, span.length - len(data), span.start + len(data))
        if not more:
            raise BundleError(
                f"part {path} has become shorter: it ends at {span.start + len(data)}"
            )
        data += more
    return data


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(
            f"part {path}: {error.strerror}; --parts names the folder of the parts"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"part {path} is not a plain file")
    return status.st_size
