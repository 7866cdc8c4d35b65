"""A single image as the images of a mount: a shelf of one slot, whose root is the view's folder.

Concurrency: the one view is open from beginning to end, so nothing here changes.
"""

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from bundlefs.base.errors import UnknownNameError
from bundlefs.base.futures import done
from bundlefs.fuse.asking import look_at
from bundlefs.fuse.views import View

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class SingleImage:
    """The images of a mount that shows one view, by the number 0; they own the view."""

    folders = None

    def __init__(self, view: View[Any]) -> None:
        self._view = view
        self._opened: Future[View[Any]] = done(view)

    def hold(self, number: int) -> Future[View[Any]]:
        """Return the view, which is open."""
        if number:
            raise UnknownNameError(f"no image has the number {number}")
        return self._opened

    def release(self, number: int) -> None:
        """Keep the view open: the mount is there for it."""

    def view(self, number: int) -> View[Any] | None:
        """Return the view."""
        return None if number else self._view

    def begun_ns(self, number: int) -> int:  # noqa: ARG002  # there is one
        """Return when the bundle was begun."""
        return self._view.created_ns

    def look_at(self, number: int) -> Future[None] | None:
        """Have a thread see whether the image has changed, if it can."""
        return None if number else look_at(self._view)

    def status_of(self, number: int) -> "DataclassInstance":  # noqa: ARG002  # there is one
        """Return where the view stands."""
        return self.status()

    def status(self) -> "DataclassInstance":
        """Return where the view stands."""
        return self._view.status()

    def space(self) -> tuple[int, int]:
        """Return the size of the image, and of the bundle as far as it is made; bytes."""
        return self._view.space()

    def close(self) -> None:
        """End the view: whoever waits gets an error."""
        self._view.close()
