"""The part files of a bundle, as one stream of sealed bytes that is read by offset.

A manifest states names and digests of parts, but no sizes. Those are taken from the files, and
their sum must be what the manifest states. The last part may be empty: euca2ools writes such a
one after an exact multiple of the part size.

Files are read in whole runs, and the runs used last are kept. So whoever goes through the stream
in small steps, or needs the 16 bytes before a span, still reads each file once and in order.

Concurrency: any thread may read.
"""

import stat
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Self

from bundlefs.base.descriptors import Descriptors
from bundlefs.base.errors import BundleError
from bundlefs.base.recent import Recent
from bundlefs.base.spans import Span, joined, split
from bundlefs.manifest.read import BundleManifest
from bundlefs.unbundling.part_file import RUN, PartFile, sha1_of

_RUNS_KEPT = (16 << 20) // RUN


class MissingPartError(BundleError):
    """A part is not in the folder, or cannot be looked at there."""


class PartFiles:
    """The parts that `manifest` names, in `folder`. A context manager that closes them.

    Raises:
        MissingPartError: a part is not there.
        BundleError: a part is no plain file, or the sizes do not add up.
    """

    def __init__(self, manifest: BundleManifest, folder: Path, *, check: bool = True) -> None:
        self.checked = check
        self._entries = manifest.parts
        self.folder = folder
        sizes = [_size(folder / entry.filename) for entry in manifest.parts]
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts[-1]
        self._descriptors = Descriptors()
        if manifest.bundled_size is not None and self.size != manifest.bundled_size:
            raise BundleError(
                f"the parts in {folder} have {self.size} bytes together and the manifest says"
                f" {manifest.bundled_size}: {self._suspect(sizes)}"
            )
        names = {entry.digest: entry.filename for entry in reversed(manifest.parts)}
        self._files = [
            PartFile(
                folder / entry.filename,
                size,
                entry.digest if check else None,
                names,
                self._descriptors,
            )
            for entry, size in zip(manifest.parts, sizes, strict=True)
        ]
        self._runs: Recent[tuple[int, int]] = Recent(_RUNS_KEPT, self._run)

    def _suspect(self, sizes: list[int]) -> str:
        """Return which part has the wrong size, to say where to look.

        No part's own size is known. So it is a part with another size than most have, or the last
        one, and its digest is not what the manifest says.
        """
        *whole, _ = sizes
        shared = Counter(whole)
        odd = [at for at, size in enumerate(whole) if 2 * shared[size] <= len(whole) + 1]
        for number in (*odd, len(whole)):
            entry = self._entries[number]
            if sha1_of(self.folder / entry.filename) != entry.digest:
                return f"{entry.filename} has {sizes[number]} bytes and is damaged"
        return "no part stands out by its size"

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Closing them again does nothing, and a read opens them again."""
        self._descriptors.close()

    def span(self, number: int) -> Span:
        """Return where a part lies in the sealed stream."""
        return Span(self._starts[number], self._starts[number + 1])

    def check(self, number: int) -> None:
        """Digest a part unless that was done, or digests are not to be compared.

        Raises:
            BundleChangedError: it was whole, and was changed.
            BundleError: it is not what the manifest says; the text names it.
        """
        if self.checked:
            self._files[number].check()

    def take(self, number: int, into: memoryview) -> None:
        """Read a whole part to the start of `into`, in one go with its digest.

        Raises:
            BundleChangedError, BundleError: as `check`.
        """
        self._files[number].take(into)

    def read(self, span: Span) -> bytes:
        """Return exactly these bytes of the sealed stream, from checked parts alone.

        Raises:
            BundleChangedError, BundleError: as `check`.
        """
        pieces: list[bytes] = []
        number = bisect_right(self._starts, span.start) - 1
        while number < len(self) and self._starts[number] < span.stop:
            wanted = span.clip(self.span(number)).shift(-self._starts[number])
            for run, inside in split(wanted, RUN):
                pieces.append(self._runs.get((number, run))[inside.start : inside.stop])
            number += 1
        return joined(pieces)

    def _run(self, key: tuple[int, int]) -> bytes:
        number, run = key
        return self._files[number].read(run)


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise MissingPartError(f"part {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"part {path} is not a plain file")
    return status.st_size
