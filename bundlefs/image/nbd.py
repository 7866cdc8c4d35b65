"""A client of the network block device protocol that can read and do nothing else.

It has just what `qemu-nbd` on this machine needs: the fixed newstyle handshake and simple replies.
[NetworkBlockDevice/nbd, doc/proto.md]

Concurrency: a connection serves one reader at a time, and a disk has several connections.
"""

import errno
import os
import queue
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from bundlefs.base.spans import joined

_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_EXPORT = struct.Struct(">QH")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")

_OPTIONS_MAGIC = b"IHAVEOPT"
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_FIXED_NEWSTYLE_NO_ZEROES = 3
_EXPORT_NAME = 1
_READ, _DISCONNECT = 0, 2
_LONGEST = 16 << 20
"""Bytes of a request; a server need not serve one of more than 32 MiB."""


class Connection:
    """One connection to the export without a name.

    Attributes:
        size: of the export, in bytes.

    Raises:
        OSError: the server has ended, or speaks another protocol.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        greeting, options, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if greeting != b"NBDMAGIC" or options != _OPTIONS_MAGIC or ~flags & 3:
            raise OSError(errno.EPROTO, "this is no NBD server of the fixed newstyle")
        end.sendall(struct.pack(">I", _FIXED_NEWSTYLE_NO_ZEROES))
        end.sendall(_OPTION.pack(_OPTIONS_MAGIC, _EXPORT_NAME, 0))
        self.size: int = _EXPORT.unpack(self._receive(_EXPORT.size))[0]

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`.

        Raises:
            OSError: the server says so, or has ended.
        """
        pieces = []
        while length:
            step = min(length, _LONGEST)
            pieces.append(self._read(offset, step))
            offset, length = offset + step, length - step
        return joined(pieces)

    def _read(self, offset: int, length: int) -> bytes:
        self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, 0, offset, length))
        magic, error, _ = _REPLY.unpack(self._receive(_REPLY.size))
        if magic != _REPLY_MAGIC:
            self.close()
            raise OSError(errno.EPROTO, "the NBD server does not answer as asked")
        if error:
            raise OSError(error, os.strerror(error))
        return self._receive(length)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:  # also of a socket that was closed then
            raise self._ended() from error

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                count = self._socket.recv_into(view)
            except ConnectionError as error:
                raise self._ended() from error
            if not count:
                raise self._ended()
            view = view[count:]
        return bytes(data)

    def _ended(self) -> OSError:
        self.close()
        return OSError(
            errno.EIO,
            "the NBD server, qemu-nbd, has ended before its time (killed, or short of memory?):"
            " unmount, and mount it again",
        )

    def close(self) -> None:
        """Tell the server, and close. Closing it again does nothing."""
        with suppress(OSError):
            self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()


class Disk:
    """A server's export over several connections. Thread-safe."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.size = connections[0].size
        self._all = tuple(connections)
        self._free: queue.LifoQueue[Connection] = queue.LifoQueue()
        for connection in connections:
            self._free.put(connection)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes at `offset`, on the next connection that is free."""
        connection = self._free.get()
        try:
            return connection.read(offset, length)
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()
