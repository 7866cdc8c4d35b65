"""A wire of a given speed: passes TCP connections on to a port of loopback, so fast and no faster.

    python relay.py PORT BYTES_A_SECOND

Prints the port that it listens on. All connections share the speed of what goes up; answers come
back at any speed. The bytes go from socket to socket within the kernel (splice), so that the wire
takes next to nothing of the processors that are measured.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress

_PIECE = 64 << 10
"""A pipe has room for so much."""


class Wire:
    """How much may go through, and when. The time of each piece is taken from one clock."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._lock = threading.Lock()
        self._free = 0.0

    def wait(self, count: int) -> None:
        """Return when `count` bytes have had the time that they take."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._speed
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def _pump(source: socket.socket, target: socket.socket, wire: Wire | None) -> None:
    """Move what comes from one socket to the other until it ends."""
    outlet, inlet = os.pipe()
    with suppress(OSError):
        while count := os.splice(source.fileno(), inlet, _PIECE):
            if wire:
                wire.wait(count)
            while count:
                count -= os.splice(outlet, target.fileno(), count)
    for end in (outlet, inlet):
        os.close(end)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RD if each is source else socket.SHUT_WR)


def _serve(client: socket.socket, port: int, wire: Wire) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pump, args=(server, client, None))
        back.start()
        _pump(client, server, wire)
        back.join()


def main(port: int, speed: float) -> None:
    """Listen until somebody ends us."""
    wire = Wire(speed)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, wire), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
