"""A TCP connection that can be cut: what a server sees when a network goes away."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 1 << 16


@dataclass(slots=True)
class Wire:
    """Hands bytes on until it is cut; then nobody is there."""

    to: tuple[str, int]
    listener: socket.socket
    ends: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to)
                self.ends += [near, far]
                self.begin(near, far)
                self.begin(far, near)

    def begin(self, source: socket.socket, target: socket.socket) -> None:
        self.threads.append(threading.Thread(target=hand_on, args=(source, target)))
        self.threads[-1].start()

    def cut(self) -> None:
        """End all connections, and take no more; again does nothing."""
        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def hand_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def wire(url: str) -> Iterator[Wire]:
    """Lead to the server at `url` for the length of a `with`."""
    there = urlsplit(url)
    assert there.hostname
    assert there.port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Wire((there.hostname, there.port), listener)
        thread = threading.Thread(target=made.accept)
        thread.start()
        try:
            yield made
        finally:
            made.cut()
            for each in (thread, *made.threads):
                each.join()
            for end in made.ends:
                end.close()
