"""What a mount shows, as protocols: the file system knows bundles and disks by these alone.

Every view has what `View` asks for: names, sizes and bytes. What only some views can do is a
protocol of its own (`OnDemand`, `Watched`, `WithDigests`), which a view has by having its methods;
`asking` finds out which it has, and says what holds for a view without. Nothing is implemented
here, and nothing here waits: a question that takes time is answered by a future, which holds
the error where there is one. All methods may be called from any thread.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class View(Protocol[E]):
    """Files, as entries `E`, each with a key: a number that never changes.

    `find` and `known_size` raise UnknownNameError for what is not there. The status has at least
    the fields `phase`, `image` and `error`.
    """

    created_ns: int

    def status(self) -> "DataclassInstance":
        """Return where it stands, as fields that JSON can hold."""

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of the bundle as far as it is made; bytes."""

    def close(self) -> None:
        """End it: whoever waits gets an error. Closing it again does nothing."""

    def find(self, name: str) -> E:
        """Return the entry of a name that exists or may turn out to."""

    def name(self, entry: E) -> str:
        """Return the name of an entry."""

    def key(self, entry: E) -> int:
        """Return the key of an entry, 0 or more."""

    def entry(self, key: int) -> E:
        """Return the entry of a key."""

    def entries(self) -> Sequence[E]:
        """Return all entries, as they sort."""

    def known_size(self, entry: E) -> int | None:
        """Return a size in bytes, or None if it is not known yet."""

    def when_read(self, entry: E, offset: int, length: int) -> Future[memoryview]:
        """Ask for bytes, which the future then holds."""


@runtime_checkable
class OnDemand(Protocol[E_contra]):
    """A view whose entries are made as they are asked for.

    The future of a question is done once the answer of the view can be had: `when_listed` for
    `entries`, `when_sized` for `known_size`, `when_reached` for `when_read`.
    """

    def when_listed(self) -> Future[None]:
        """Ask for all entries."""

    def when_sized(self, entry: E_contra) -> Future[None]:
        """Ask for a size."""

    def when_reached(self, entry: E_contra, offset: int, length: int) -> Future[None]:
        """Ask for bytes to be made."""

    def read_fast(self, entry: E_contra, offset: int, length: int) -> memoryview | None:
        """Return the bytes if that takes no time, else None."""


@runtime_checkable
class Watched(Protocol):
    """A view of something that may change while it is shown."""

    def when_checked(self) -> Future[None]:
        """Ask whether all that is shown can still be had; the future holds the error if not."""

    def look(self) -> Future[None]:
        """Have a thread check; the future is done when `status` tells what was found."""


@runtime_checkable
class WithDigests(Protocol[E_contra]):
    """A view of which some entries have a digest; UnknownNameError is raised for the others."""

    def has_digest(self, entry: E_contra) -> bool:
        """Return whether an entry is of a kind that has a digest."""

    def when_digested(self, entry: E_contra) -> Future[None]:
        """Ask for a digest."""

    def digest(self, entry: E_contra) -> str:
        """Return the SHA-1 in hex."""


class FleetingFiles(Protocol[E]):
    """Files that are made once and in memory for a moment."""

    def on_made(self, tell: Callable[[E], None]) -> Sequence[E]:
        """Have `tell` called with each as it is whole, in any thread; no more is made meanwhile.

        Return the last that are whole by now.
        """

    def bytes_of(self, entry: E) -> Sequence[memoryview] | None:
        """Return all bytes of a whole one, in pieces; None if it need not or cannot be kept."""

    def note_given(self, length: int) -> None:
        """Count what the kernel was given of them; one thread calls this."""


@runtime_checkable
class Fleeting(Protocol[E]):
    """A view that has such files, and that may fail."""

    def fleeting(self) -> FleetingFiles[E] | None:
        """Return them; None if there is nothing that somebody should keep."""

    def failure(self) -> BaseException | None:
        """Return the error if it has failed for good."""


class Folders(Protocol):
    """A folder for each of many images, by name."""

    def finding(self, name: str) -> Future[int]:
        """Ask for the number of the image of a name; UnknownNameError if there is none."""

    def scanning(self) -> Future[list[tuple[str, int]]]:
        """Ask for name and number of each image."""


class Images(Protocol):
    """The views that a mount shows, by number; 0 is the mount as a whole, which may be a view."""

    @property
    def folders(self) -> Folders | None:
        """What the mount's root lists; None if the root is the folder of the one view."""

    def hold(self, number: int) -> Future[View[Any]]:
        """Ask for a view, which stays open until `release`; that is called once for each `hold`."""

    def release(self, number: int) -> None:
        """Take back one `hold`."""

    def view(self, number: int) -> View[Any] | None:
        """Return a view if there is one and it is open: for sure while it is held."""

    def begun_ns(self, number: int) -> int:
        """Return the time that the files of a view show."""

    def look_at(self, number: int) -> Future[None] | None:
        """Have a thread see whether what a number shows has changed; None if nothing can have."""

    def status_of(self, number: int) -> "DataclassInstance":
        """Return where a number stands, be it open or not."""

    def status(self) -> "DataclassInstance":
        """Return where the mount as a whole stands; the fields are those of a view's, or more."""

    def space(self) -> tuple[int, int]:
        """Return the sizes of all images, and of their bundles as far as they are made; bytes."""

    def close(self) -> None:
        """End all: whoever waits gets an error. Closing it again does nothing."""
