"""What follows when a future is done, without a thread that waits for it.

Whoever ends early settles the futures that others wait for. A result or an error that comes later
finds them settled; `give` and `refuse` ignore it then.

Concurrency: any thread may settle a future; what follows runs in the thread that does so.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from bundlefs.base.errors import ClosedError

_CLOSED = "it was closed before the answer was there"

A = TypeVar("A")
B = TypeVar("B")


def give(future: Future[A], value: A) -> None:
    """Settle a future with a value, unless it is settled."""
    with suppress(InvalidStateError):
        future.set_result(value)


def refuse(future: Future[Any], error: BaseException) -> None:
    """Settle a future with an error, unless it is settled."""
    with suppress(InvalidStateError):
        # It may be raised many times, and each time would add to its traceback.
        future.set_exception(error.with_traceback(None))


def done(value: A) -> Future[A]:
    """Return a future that is done."""
    future: Future[A] = Future()
    future.set_result(value)
    return future


DONE: Future[None] = done(None)
"""A future for callers that need not wait."""


def failed(error: BaseException) -> Future[Any]:
    """Return a future that holds an error."""
    future: Future[Any] = Future()
    refuse(future, error)
    return future


def failure(future: Future[Any]) -> BaseException | None:
    """Return the error of a future that is done; one is cancelled only when everything ends."""
    return ClosedError(_CLOSED) if future.cancelled() else future.exception()


def chain(first: Future[A], then: Callable[[A], Future[B]]) -> Future[B]:
    """Return the future of `then`, called when `first` is done; it has an error of either."""
    result: Future[B] = Future()

    def go_on(first: Future[A]) -> None:
        if error := failure(first):
            refuse(result, error)
            return
        try:
            second = then(first.result())
        except BaseException as error:  # noqa: BLE001  # it is for those who wait
            refuse(result, error)
        else:
            second.add_done_callback(partial(_forward, result))

    first.add_done_callback(go_on)
    return result


def _forward(result: Future[A], first: Future[A]) -> None:
    if error := failure(first):
        refuse(result, error)
    else:
        give(result, first.result())


class Promises:
    """Futures that somebody waits for; all of them are settled when this is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False

    def promise(self, first: Future[A]) -> Future[A]:
        """Return a future that is settled as `first` is, or earlier, when this is closed."""
        result = chain(first, done)
        with self._lock:
            if not self._closed:
                self._open.add(result)
        result.add_done_callback(self._forget)
        if self._closed:
            refuse(result, ClosedError(_CLOSED))
        return result

    def _forget(self, result: Future[Any]) -> None:
        with self._lock:
            self._open.discard(result)

    def close(self) -> None:
        """Refuse all who wait, and all who come later."""
        with self._lock:
            self._closed = True
            left = list(self._open)
        for result in left:
            refuse(result, ClosedError(_CLOSED))


def gathered(futures: Sequence[Future[A]], join: Callable[[list[A]], B]) -> Future[B]:
    """Return a future of what `join` makes of all results (one or more), or of the first error."""
    result: Future[B] = Future()
    lock = threading.Lock()
    left = len(futures)
    # They hold the callback, which must not hold them and their results once all are done.
    held = list(futures)

    def count(_: Future[A]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = not left
        if last:
            _settle_joined(result, held, join)
            held.clear()

    for future in futures:
        future.add_done_callback(count)
    return result


def _settle_joined(
    result: Future[B], futures: Sequence[Future[A]], join: Callable[[list[A]], B]
) -> None:
    for future in futures:
        if error := failure(future):
            refuse(result, error)
            return
    try:
        give(result, join([future.result() for future in futures]))
    except BaseException as error:  # noqa: BLE001  # it is for those who wait
        refuse(result, error)
