"""An opened bundle as the file system shows it: a folder with the image and its partitions.

Names and sizes are known at once, so the view has only what `fuse.views.View` asks of every view.

Concurrency: any thread may ask. Reads are made on threads of the view's own, since storage may not
answer, and nobody else is to wait for it.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from bundlefs.base.errors import BundleChangedError, BundleError, UnknownNameError
from bundlefs.base.futures import Promises
from bundlefs.base.spans import Span
from bundlefs.base.threads import Threads, asking_storage
from bundlefs.unbundling.opened import OpenedBundle

log = logging.getLogger(__name__)

_READ_THREADS = 64


@dataclass(frozen=True, slots=True)
class OpenStatus:
    """What an opened bundle says of itself. Sizes are bytes, times are seconds.

    Attributes:
        phase: `complete`, `indexing` while a read waits for a pass over the bundle, or `failed`.
        pass_bytes_done: how far that pass is in the bundle's `pass_bytes_total`, else both are 0.
    """

    phase: str
    image: str
    image_size: int
    sealed_bytes: int
    access: str
    error: str | None
    pass_bytes_done: int = 0
    pass_bytes_total: int = 0
    pass_seconds: float = 0.0


class DiskView:
    """An opened bundle as a folder with its image, entry 0, and a file for each partition.

    A partition is the very bytes of the image that it is: there is no other copy of them.

    Args:
        bundle: the bundle.
        created_ns: the time that the files show.
        partitions: where in the image each is, by its number, which is its entry: 1 or more.
    """

    def __init__(
        self, bundle: OpenedBundle, created_ns: int, partitions: Mapping[int, Span] | None = None
    ) -> None:
        self.created_ns = created_ns
        self._bundle = bundle
        self._name = bundle.name
        self._spans = {0: Span(0, bundle.size), **(partitions or {})}
        stem = bundle.name.removesuffix(".img")
        self._names = {entry: f"{stem}.p{entry}" if entry else self._name for entry in self._spans}
        self._entries = {name: entry for entry, name in self._names.items()}
        self._error: str | None = None
        self._changed = False
        self._threads = Threads(_READ_THREADS, "read")
        self._promises = Promises()

    def find(self, name: str) -> int:
        """Return the entry of the image or of a partition."""
        if name not in self._entries:
            raise UnknownNameError(f"no file {name!r} here")
        return self._entries[name]

    def name(self, entry: int) -> str:
        """Return the name of an entry."""
        return self._names[entry]

    def key(self, entry: int) -> int:
        """Return the entry, which is its own key."""
        return entry

    def entry(self, key: int) -> int:
        """Return the key, which is the entry."""
        return key

    def entries(self) -> Sequence[int]:
        """Return the image and the partitions in order."""
        return tuple(sorted(self._spans))

    def known_size(self, entry: int) -> int:
        """Return the size of an entry, in bytes."""
        return self._spans[entry].length

    def when_read(self, entry: int, offset: int, length: int) -> Future[memoryview]:
        """Read bytes of an entry on a thread of the view."""
        reading = self._threads.submit(partial(self.read, entry, offset, length))
        return self._promises.promise(reading)

    def read(self, entry: int, offset: int, length: int) -> memoryview:
        """Return bytes of an entry."""
        span = self._spans[entry]
        wanted = Span(offset, offset + length).clip(Span(0, span.length)).shift(span.start)
        try:
            with asking_storage():
                return memoryview(self._bundle.read(wanted.start, wanted.length))
        except BundleError as error:
            self._tell(error)
            raise

    def _tell(self, error: BundleError) -> None:
        """Log an error unless it was the last one that was logged, and keep it for the status.

        A damaged part may be fetched anew, and is tried again at the next read. A changed part
        stays refused, so the status tells of it from then on.
        """
        if str(error) != self._error:
            log.error("%s", error)
        if not self._changed:
            self._error = str(error)
            self._changed = isinstance(error, BundleChangedError)

    def status(self) -> OpenStatus:
        """Return what is opened and whether it can still be read."""
        wait = self._bundle.wait
        return OpenStatus(
            phase="failed" if self._error else "indexing" if wait else "complete",
            image=self._name,
            image_size=self._bundle.size,
            sealed_bytes=self._bundle.sealed_size,
            access=self._bundle.access,
            error=self._error,
            pass_bytes_done=wait.done if wait else 0,
            pass_bytes_total=(wait.total or 0) if wait else 0,
            pass_seconds=round(wait.seconds, 3) if wait else 0.0,
        )

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of all parts together, in bytes."""
        return self._bundle.size, self._bundle.sealed_size

    def close(self) -> None:
        """Begin no more reads. Those under way end when storage answers."""
        self._threads.shut()
        self._promises.close()

    def ended(self) -> bool:
        """Wait for reads under way unless storage does not answer; return whether all ended."""
        return self._threads.join()
