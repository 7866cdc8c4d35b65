"""Where an image goes that comes out of a bundle: a file with holes, a pipe, or nowhere.

An output takes the data of an image in order and is told its size at the end. What nobody wrote
is zeros: a file has holes there, and a pipe gets the zeros.

What is written to a file goes to the disk soon, so that the sync at the end has little left to do.

Concurrency: one thread at a time writes.
"""

import os
from typing import Protocol

from bundlefs.base.files import start_writeback, write_all
from bundlefs.base.holes import grains_with_data

_WRITTEN_BACK = 16 << 20
"""Bytes that are sent to the disk together."""


class Output(Protocol):
    """Takes the data of an image in order, then its size. What is not written is zeros."""

    @property
    def waits(self) -> bool:
        """Whether a write may wait for somebody who reads, for any length of time."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take data of the image that stands at `offset`; offsets only grow."""

    def finish(self, size: int) -> None:
        """Hear that all data was written, and that the image has `size` bytes."""


class Nowhere:
    """An output for a caller who only wants to know whether the bundle is whole."""

    waits = False

    def write(self, offset: int, data: memoryview) -> None:
        """Drop the data."""

    def finish(self, size: int) -> None:
        """Do nothing."""


class SparseFile:
    """A file with holes where nothing is written, and with `sparse` also where zeros are.

    Args:
        file: its descriptor.
        sparse: leave holes for zeros that are written, too.
    """

    waits = False

    def __init__(self, file: int, *, sparse: bool) -> None:
        self._file = file
        self._sparse = sparse
        self._begun = 0

    def write(self, offset: int, data: memoryview) -> None:
        """Write the data at its offset."""
        pieces = grains_with_data(data) if self._sparse else ((0, data),)
        for start, piece in pieces:
            write_all(self._file, piece, offset + start)
        self._write_back(offset + len(data))

    def _write_back(self, stop: int) -> None:
        """Let the kernel begin to write what it has up to `stop`, if that is worth its while."""
        if stop - self._begun >= _WRITTEN_BACK:
            start_writeback(self._file, self._begun, stop - self._begun)
            self._begun = stop

    def finish(self, size: int) -> None:
        """Give the file its size, and sync it."""
        os.ftruncate(self._file, size)
        os.fsync(self._file)


class Pipe:
    """A file descriptor that gets one byte after the other, holes as zeros.

    Nothing is buffered: what could not be written must not come up again when Python ends.
    """

    waits = True
    _ZEROS = memoryview(bytes(1 << 20))

    def __init__(self, file: int) -> None:
        self._file = file
        self._position = 0

    def write(self, offset: int, data: memoryview) -> None:
        """Write the zeros up to `offset`, then the data."""
        self._fill(offset)
        self._write(data)

    def _fill(self, stop: int) -> None:
        while self._position < stop:
            self._write(self._ZEROS[: stop - self._position])

    def _write(self, data: memoryview) -> None:
        while data:
            done = os.write(self._file, data)
            self._position, data = self._position + done, data[done:]

    def finish(self, size: int) -> None:
        """Write the zeros up to the end."""
        self._fill(size)
