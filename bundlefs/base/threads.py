"""Threads that end when they are told to, except those that storage does not let go.

A read of a disk that hangs cannot be called off. So all threads are daemons, and whoever closes
them waits only for those whose end does not depend on storage.

Concurrency: there is one condition for each `Threads`; each thread writes its own entry of
`_asking`.
"""

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from bundlefs.base.errors import ClosedError

T = TypeVar("T")

PATIENCE_SECONDS = 1.0
"""Storage that has not answered for so long counts as hanging: nobody else waits for it."""

_JOIN_SECONDS = 0.05

_asking: dict[int, float] = {}
"""For each thread that waits for storage: since when."""


@contextmanager
def asking_storage() -> Iterator[None]:
    """Mark code that may hang; nobody waits for a thread that hangs there."""
    me = threading.get_ident()
    before = _asking.get(me)
    _asking[me] = time.monotonic() if before is None else before
    try:
        yield
    finally:
        if before is None:
            del _asking[me]


def _hangs(thread: threading.Thread) -> bool:
    since = _asking.get(thread.ident or 0)
    return since is not None and time.monotonic() - since > PATIENCE_SECONDS


def start_abandonable(call: Callable[[], None], name: str) -> threading.Thread:
    """Start `call` in a thread of its own, which the end of the program does not wait for."""
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    return thread


def lasting(call: Callable[[], T]) -> T:
    """Do `call` in a thread that ends with the program, wait for it, and return what it returns.

    The kernel takes the end of the thread that started a process for the end of its parent
    [prctl(2), PR_SET_PDEATHSIG]. The main thread lasts; of any other, nothing is known.
    """
    if threading.current_thread() is threading.main_thread():
        return call()
    return _lasting(os.getpid()).submit(call).result()


@cache
def _lasting(_process: int) -> "Threads":
    """Return the one thread of this process: a fork does not take it along."""
    return Threads(1, "lasting")


def settle(future: Future[Any], call: Callable[[], object]) -> None:
    """Settle a future with the outcome of `call`, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  # it is for those who wait
        future.set_exception(error)


class NoMoreWorkError(ClosedError, RuntimeError):
    """The threads are closed, or the program ends."""


class Threads:
    """At most `most` threads; they start when they are first needed, and rest between calls.

    Attributes:
        shutting: done as soon as no more work is taken, since they are closed or the program ends.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], object]]] = deque()
        self._resting = 0
        self._all: list[threading.Thread] = []
        self._closed = False
        self.shutting: Future[None] = Future()
        _open.add(self)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Let a thread do `call`; first come, first served.

        Raises:
            NoMoreWorkError: they are closed, or the program ends.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise NoMoreWorkError("no more work is taken: the threads have been closed")
            if self._resting <= len(self._calls) and len(self._all) < self._most:
                name = f"{self._name}_{len(self._all)}"
                self._all.append(start_abandonable(self._run, name))
            self._calls.append((future, call))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while item := self._next():
            settle(*item)
            # It may hold a block, and the next one may be long in coming.
            del item

    def _next(self) -> tuple[Future[Any], Callable[[], object]] | None:
        with self._changed:
            self._resting += 1
            while not self._calls and not self._closed:
                self._changed.wait()
            self._resting -= 1
            return self._calls.popleft() if self._calls else None

    def shut(self) -> None:
        """Take no more calls, and cancel those that wait."""
        with self._changed:
            first, self._closed = not self._closed, True
            dropped = list(self._calls)
            self._calls.clear()
            self._changed.notify_all()
        for future, _ in dropped:
            future.cancel()
        if first:
            self.shutting.set_result(None)

    def ended(self) -> bool:
        """Tell whether no thread is left; those that are not closed count as ended."""
        return not self._closed or not any(thread.is_alive() for thread in self._all)

    def join(self) -> bool:
        """Wait for the threads that storage does not hold; return whether all have ended."""
        for thread in self._all:
            _wait(thread)
        return self.ended()


def _wait(thread: threading.Thread) -> None:
    while thread is not threading.current_thread() and thread.is_alive() and not _hangs(thread):
        thread.join(_JOIN_SECONDS)


def closed_in_time(close: Callable[[], object], *, patient: bool) -> bool:
    """Call `close`, and unless `patient` wait no longer than storage may take.

    Closing a file in which a read hangs may hang as well. Return whether it is closed.
    """
    if patient:
        close()
        return True
    closing = start_abandonable(lambda: settle(Future(), close), "close")
    closing.join(PATIENCE_SECONDS)
    return not closing.is_alive()


def leave_if_abandoned(code: int) -> None:
    """End the program with this exit code if storage still holds one of its threads.

    Such a thread may come back at any moment, also when the interpreter is half gone.
    """
    if not all(threads.ended() for threads in list(_open)):
        leave(code)


def leave(code: int) -> NoReturn:
    """End the program with this exit code, all of whose work is done, at once.

    The interpreter would first take apart every module that is loaded, and the kernel throws all
    of that away anyway: for a command that is short it is a good part of its time.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


_open: WeakSet[Threads] = WeakSet()


def _end_all() -> None:
    """End what nobody closed: no thread may compute while the interpreter goes away."""
    left = list(_open)
    for threads in left:
        threads.shut()
    for threads in left:
        threads.join()


atexit.register(_end_all)
