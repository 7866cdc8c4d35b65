"""Guards for the FUSE handlers: every exception becomes an errno, which is chosen here alone.

An exception that is not a FUSEError ends the whole mount in pyfuse3, so every
handler has one of these guards.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from bundlefs.base.errors import (
    BundleChangedError,
    BundlefsError,
    ClosedError,
    ImageChangedError,
    UnknownNameError,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_ERRNOS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownNameError, errno.ENOENT),
    (ImageChangedError, errno.ESTALE),
    (BundleChangedError, errno.ESTALE),
    (ClosedError, errno.ENOTCONN),
    (BundlefsError, errno.EIO),
)


def _errno(error: Exception) -> int:
    """Choose what the caller sees: the image's own errno, or the table's."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            return number
    log.error("unexpected error in a handler", exc_info=error)
    return errno.EIO


def handler(
    method: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Guard a handler whose caller waits for an answer."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(_errno(error)) from error

    return guarded


def listing_handler(
    method: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Guard a handler that lists."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(method)(*args, **kwargs)
        except pyfuse3.FUSEError as error:
            # The C library takes ENOENT from a readdir for the end of the folder.
            number = errno.EIO if error.errno == errno.ENOENT else error.errno
            raise pyfuse3.FUSEError(number) from error

    return guarded


def silent_handler(
    method: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, Coroutine[Any, Any, None]]:
    """Guard a handler whose answer nobody waits for."""

    @functools.wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(*args, **kwargs)
        # Here pyfuse3 ends the mount even for a FUSEError.
        except Exception:
            log.exception("unexpected error in a handler")

    return guarded
