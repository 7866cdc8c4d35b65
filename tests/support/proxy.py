"""A reverse proxy that writes down what a sink asks of an S3 server.

moto forgets the grant of `aws-exec-read` and rclone's server never knew it, so
the header is taken from the wire. The request goes on unchanged, Host and body
included: a signature still fits.

On demand it lets answers go wrong as those of a server in trouble do.
"""

import contextlib
import enum
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

RECORDED = ("x-amz-acl", "x-amz-server-side-encryption", "content-length")
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the status of its answer; `headers` holds those of `RECORDED`.

    `sent` is how many bytes of content the server gave for it.
    """

    method: str
    target: str
    headers: dict[str, str]
    status: int
    sent: int = 0

    @property
    def path(self) -> str:
        """The decoded path: /bucket/key."""
        return unquote(urlsplit(self.target).path)

    @property
    def makes_object(self) -> bool:
        """Whether it is PutObject or CreateMultipartUpload: the two that carry an object's ACL."""
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        in_bucket = self.path.strip("/").count("/") > 0
        whole = self.method == "PUT" and "partNumber" not in query
        return in_bucket and (whole or (self.method == "POST" and "uploads" in query))


class Trouble(enum.Enum):
    """What becomes of an answer."""

    ERROR = "the server says that it failed"
    CUT = "the connection breaks in the middle"


@dataclass(frozen=True, slots=True)
class Recorder:
    """The proxy as a test sees it: where it listens, and what went through."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    """What is wrong with every answer from now on, if it is not empty."""

    def acls(self) -> dict[str, str | None]:
        """Return the ACL asked for, by /bucket/key, of every object that was made."""
        made = [one for one in self.exchanges if one.makes_object]
        return {one.path: one.headers.get("x-amz-acl") for one in made}

    def failures(self) -> list[Exchange]:
        """Return the writes that the server refused."""
        writes = ("PUT", "POST")
        return [one for one in self.exchanges if one.method in writes and one.status >= 300]


class Relay(BaseHTTPRequestHandler):
    """Hands one connection's requests on, each over a connection of its own."""

    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = 60  # an idle client must not keep a thread for ever
    upstream: ClassVar[str]
    recorder: ClassVar[Recorder]
    answered: ClassVar[Callable[[Exchange], None]]

    def relay(self) -> None:
        """Forward one request and its answer."""
        try:
            with contextlib.closing(http.client.HTTPConnection(self.upstream, timeout=120)) as made:
                self.forward(made)
                answer = made.getresponse()
                content = answer.read()
        except OSError:  # the server is gone, and so is the connection
            self.close_connection = True
            return
        kept = {n: v for n in RECORDED if (v := self.headers.get(n)) is not None}
        seen = Exchange(self.command, self.path, kept, answer.status, len(content))
        self.recorder.exchanges.append(seen)
        type(self).answered(seen)
        with contextlib.suppress(ConnectionError):  # a client that has enough hangs up
            self.answer(answer, content)

    def answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        """Answer as the server did, unless it is to be in trouble."""
        trouble = self.recorder.trouble[-1:]
        if trouble == [Trouble.ERROR]:
            self.send_error(500)
            return
        self.hand_back(answer, content, half=trouble == [Trouble.CUT])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815 - the base class's names

    def forward(self, server: http.client.HTTPConnection) -> None:
        """Send the request on: same target, same headers, same body."""
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            server.putheader(name, value)
        server.endheaders()
        for piece in self.body():
            server.send(piece)

    def body(self) -> Iterator[bytes]:
        """Yield the request's body as it came, chunk framing included."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            yield from self.chunks()
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0 and (piece := self.rfile.read(min(left, PIECE))):
            left -= len(piece)
            yield piece

    def chunks(self) -> Iterator[bytes]:
        """Yield whole chunks with their framing, up to the empty one and the trailers."""
        while size := int((line := self.rfile.readline()).split(b";")[0], 16):
            yield line + self.rfile.read(size + 2)
        yield line
        while (line := self.rfile.readline()).strip():
            yield line
        yield line

    def hand_back(
        self, answer: http.client.HTTPResponse, content: bytes, *, half: bool = False
    ) -> None:
        """Send the answer to the client, as one piece, or half of it and no more."""
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        if answer.status >= 200 and answer.status != 204 and length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection = self.close_connection or half

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the exchanges are the log."""


@contextlib.contextmanager
def recording(
    upstream: str, answered: Callable[[Exchange], None] = lambda _: None
) -> Iterator[Recorder]:
    """Run a proxy in front of the server at URL `upstream` for the length of a `with`.

    `answered` is called when the server has answered and the client does not know yet.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = False  # so that closing waits for them, and no socket is left open
    recorder = Recorder(f"http://127.0.0.1:{server.server_port}")
    told = {
        "upstream": urlsplit(upstream).netloc,
        "recorder": recorder,
        "answered": staticmethod(answered),
    }
    server.RequestHandlerClass = type("RelayHere", (Relay,), told)
    thread = threading.Thread(target=server.serve_forever, name="recording proxy")
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
