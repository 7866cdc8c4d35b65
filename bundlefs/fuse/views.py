"""What a mount shows, as protocols: the file system knows bundles and disks by these alone.

Every view has what `View` asks for: names, sizes and bytes. What only some views can do is a
protocol of its own (`OnDemand`, `Watched`, `WithDigests`), which a view has by having its methods;
`asking` finds out which it has, and says what holds for a view without. Nothing is implemented
here, and nothing here waits: a question that takes time is answered by a future, which holds
the error where there is one. All methods may be called from any thread.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class Mounted(Protocol):
    """What the whole of a mount is, be it one view or many.

    Its status has at least the fields `phase`, `image` and `error`.
    """

    created_ns: int

    def status(self) -> "DataclassInstance":
        """Return where it stands, as fields that JSON can hold."""

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of the bundle as far as it is made; bytes."""

    def close(self) -> None:
        """End it: whoever waits gets an error. Closing it again does nothing."""


class View(Mounted, Protocol[E]):
    """Files, as entries `E`, each with a key: a number that never changes.

    `find` and `known_size` raise UnknownNameError for what is not there.
    """

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
