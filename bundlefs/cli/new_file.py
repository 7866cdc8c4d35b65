"""The file that a command is to write: under the name that was given, and only if all went well."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bundlefs.base.errors import BundleError
from bundlefs.base.files import Draft, umask


class NewFile:
    """A file that gets its name at the end of the `with`, unless there was an error.

    It is best used within `explaining_writes`.

    Attributes:
        file: its descriptor.

    Raises:
        BundleError: the name is taken by a plain file and `force` is not given, or by something
            that is no plain file.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        if path.exists() and not force:
            raise BundleError(f"{path} exists; --force overwrites it")
        if path.exists() and not path.is_file():
            raise BundleError(f"{path} is not a plain file; name another with -o")
        self._path = path
        self._force = force
        self._draft = Draft(path)
        self.file = self._draft.file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._draft:
            if kind is None:
                os.fchmod(self.file, 0o666 & ~umask())
                self._publish()

    def _publish(self) -> None:
        try:
            self._draft.publish(replace=self._force)
        except FileExistsError as error:
            raise BundleError(f"{self._path} exists; --force overwrites it") from error


@contextmanager
def explaining_writes(what: object) -> Iterator[None]:
    """Turn an OSError into a BundleError that names `what` could not be written."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot write {what}: {error.strerror}") from error
