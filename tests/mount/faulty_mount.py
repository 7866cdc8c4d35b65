"""`bundlefs mount -f` with faults on demand: a program of its own, run by test_handler_faults.

Each line on stdin is a JSON object: {"break": {kind: {name: error or null}}} mends
all and breaks these, {} mends all, and {"count": true} asks. A broken method of
the kind `bundle` raises, or returns None where the error is null; one of the
kind `handler` raises inside of whatever guards it. Each line is answered by the
number of errors raised since the last mending.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from types import CellType
from typing import IO, Any

import pyfuse3

import bundlefs.fuse.operations
import bundlefs.fuse.session
from bundlefs.base import errors
from bundlefs.bundling.bundle import Bundle
from bundlefs.cli import main

ERRORS: dict[str, Callable[[], Exception]] = {
    "RuntimeError": lambda: RuntimeError("on purpose"),
    "ValueError": lambda: ValueError("on purpose"),
    "TypeError": lambda: TypeError("on purpose"),
    "KeyError": lambda: KeyError("on purpose"),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("on purpose"),
    "ExceptionGroup": lambda: ExceptionGroup("on purpose", [ValueError("one"), OSError(5, "two")]),
    "StopAsyncIteration": StopAsyncIteration,
    "OSError": lambda: OSError("without a number"),
    "OSError 121": lambda: OSError(121, "Remote I/O error"),
    "BundlefsError": lambda: errors.BundlefsError("on purpose"),
    "InconsistentError": lambda: errors.InconsistentError("on purpose"),
    "ImageChangedError": lambda: errors.ImageChangedError("on purpose"),
    "UnknownNameError": lambda: errors.UnknownNameError("on purpose"),
    "ClosedError": lambda: errors.ClosedError("on purpose"),
}


def operations() -> type[pyfuse3.Operations]:
    """Give the one class of handlers that the file system has."""
    kinds = [
        kind
        for kind in vars(bundlefs.fuse.operations).values()
        if isinstance(kind, type) and issubclass(kind, pyfuse3.Operations)
    ]
    assert len(kinds) == 1, kinds
    return kinds[0]


def inner(handler: str) -> CellType:
    """Give the cell through which a guarded handler finds what it guards."""
    guarded = vars(operations())[handler]
    found = [cell for cell in guarded.__closure__ if cell.cell_contents is guarded.__wrapped__]
    assert len(found) == 1, f"{handler} is not guarded"
    cell: CellType = found[0]
    return cell


class Faults:
    """What is broken now, and how to mend it."""

    def __init__(self) -> None:
        self._mend: list[Callable[[], None]] = []
        self._raised = 0

    def obey(self, order: dict[str, Any]) -> int:
        """Do as a line says; gives the errors raised since the last mending."""
        raised = self._raised
        if not order.get("count"):
            self._mend_all()
            broken = order.get("break", {})
            for method, error in broken.get("bundle", {}).items():
                self._break_bundle(method, error)
            for handler, error in broken.get("handler", {}).items():
                self._break_handler(handler, error)
        return raised

    def _mend_all(self) -> None:
        for mend in self._mend:
            mend()
        self._mend.clear()
        self._raised = 0

    def _raise(self, error: str | None) -> None:
        if error is not None:
            self._raised += 1
            thrown = ERRORS[error]()
            raise thrown

    def _break_bundle(self, method: str, error: str | None) -> None:
        original = getattr(Bundle, method)

        def broken(*_: object) -> None:
            self._raise(error)

        setattr(Bundle, method, broken)
        self._mend.append(lambda: setattr(Bundle, method, original))

    def _break_handler(self, handler: str, error: str | None) -> None:
        cell = inner(handler)
        original = cell.cell_contents

        async def broken(*_: object) -> None:
            self._raise(error)

        cell.cell_contents = broken
        self._mend.append(lambda: setattr(cell, "cell_contents", original))


def listen(orders: IO[str], answers: IO[str]) -> None:
    """Obey line by line."""
    faults = Faults()
    for line in orders:
        print(faults.obey(json.loads(line)), file=answers, flush=True)


def own(descriptor: int, mode: str) -> IO[str]:
    """Give a descriptor another number: while FUSE mounts, 0 and 1 are other files."""
    return open(os.dup(descriptor), mode)  # noqa: PTH123  # no path; for the process's life


if __name__ == "__main__":
    # Who shows progress asks for the status too: faults are for the handlers alone.
    bundlefs.fuse.session._TICK_SECONDS = 3600  # noqa: SLF001
    threading.Thread(target=listen, args=(own(0, "r"), own(1, "w")), daemon=True).start()
    sys.exit(main(["mount", "-f", *sys.argv[1:]]))
