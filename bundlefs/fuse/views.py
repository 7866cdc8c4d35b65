"""What a mount shows, as the file system asks for it."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E")


class Shown(Protocol):
    """What the whole of a mount is, be it one view or many.

    Its status has at least the fields `phase`, `image` and `error`.
    """

    created_ns: int

    def status(self) -> "DataclassInstance":
        """Tell where it stands, as fields that JSON can hold."""

    def space(self) -> tuple[int, int]:
        """Give the size of the image, and of the bundle as far as it is made; bytes."""

    def close(self) -> None:
        """End it: whoever waits gets an error."""


class View(Shown, Protocol[E]):
    """What is shown: entries `E`, each with a key, a number that never changes.

    `find`, `known_size` and `digest` raise UnknownNameError for what is not there. A future
    tells when the answer to the question of the same name can be had, or holds the error.
    """

    def when_checked(self) -> Future[None]:
        """Ask whether all that is shown can still be had; the future holds the error if not."""

    def look(self) -> Future[None]:
        """Have a thread `check`; the future is done when `status` tells what was found."""

    def find(self, name: str) -> E:
        """Give the entry of a name that exists or may turn out to."""

    def name(self, entry: E) -> str:
        """Give the name of an entry."""

    def key(self, entry: E) -> int:
        """Give the key of an entry, 0 or more."""

    def entry(self, key: int) -> E:
        """Give the entry of a key."""

    def when_listed(self) -> Future[None]:
        """Ask for all entries."""

    def entries(self) -> Sequence[E]:
        """Give all entries, as they sort."""

    def when_sized(self, entry: E) -> Future[None]:
        """Ask for a size."""

    def known_size(self, entry: E) -> int | None:
        """Give a size in bytes, or None if it is not known yet."""

    def when_reached(self, entry: E, offset: int, length: int) -> Future[None]:
        """Ask for bytes."""

    def read_fast(self, entry: E, offset: int, length: int) -> memoryview | None:
        """Give the bytes if that takes no time."""

    def when_read(self, entry: E, offset: int, length: int) -> Future[memoryview]:
        """Ask for the bytes that the future then holds; `when_reached` is done."""

    def has_digest(self, entry: E) -> bool:
        """Tell whether an entry is of a kind that has a digest."""

    def when_digested(self, entry: E) -> Future[None]:
        """Ask for a digest."""

    def digest(self, entry: E) -> str:
        """Give the SHA-1 in hex."""
