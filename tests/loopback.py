"""What the servers of the tests on 127.0.0.1 have in common: requests, faults, answers, ranges."""

from __future__ import annotations

import atexit
import functools
import gzip
import hmac
import io
import os
import re
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal

Content = bytes | Path
ServerName = Literal["hub", "cdn"]

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request as it arrived: `path` is raw and has the query, header names are lower-case."""

    server: ServerName
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose raw path matches the regex `path`.

    `status`, with `headers`, replaces the whole answer. `cut` and `flip` damage the body of a good
    answer to a GET: it ends after `cut` bytes (the connection closes, or falls silent if `stall`),
    and the byte at `flip` is inverted; both count from the start of the body, before any gzip.
    `length` is what Content-Length says, where there is one, instead of the truth: a body that is
    longer ends there, and after one that is shorter the connection closes (or falls silent).
    `pace` is how many bytes of the body are sent in a second. All of these may come together.
    The file's name is in the path on both servers; `server` and `method` narrow the choice.
    """

    path: str
    times: int = 1
    server: ServerName | None = None
    method: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: bool = False
    flip: int | None = None
    length: int | None = None
    pace: float | None = None

    def strikes(self, request: Request) -> bool:
        """Whether this fault is meant for the request, and not yet used up."""
        return (
            self.times > 0
            and self.server in (None, request.server)
            and self.method in (None, request.method)
            and re.search(self.path, request.path) is not None
        )

    def damaged(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The body with one byte inverted, and no longer than it may be."""
        end = min(end for end in (self.cut, self.length, sys.maxsize) if end is not None)
        position = 0
        for piece in map(bytearray, body):
            if self.flip is not None and 0 <= self.flip - position < len(piece):
                piece[self.flip - position] ^= 0xFF
            if position + len(piece) >= end:
                yield bytes(piece[: end - position])
                return
            yield bytes(piece)
            position += len(piece)

    def paced(self, body: Iterable[bytes], closed: threading.Event) -> Iterator[bytes]:
        """The body in pieces, each when its time has come; ConnectionError once `closed` is set."""
        if self.pace is None:
            yield from body
            return
        # At a slow pace, smaller ones: a client should find the answer slow, not silent.
        size = max(1, min(_PIECE, int(self.pace / 10)))
        started, sent = time.monotonic(), 0
        for whole in body:
            for start in range(0, len(whole), size):
                piece = whole[start : start + size]
                sent += len(piece)
                if closed.wait(started + sent / self.pace - time.monotonic()):
                    raise ConnectionAbortedError("the server stops")
                yield piece


@dataclass(frozen=True)
class Answer:
    """A response before it is written: bytes `start` to `stop` of `content`.

    `chunked`: without a length. `gzipped`: compressed, and therefore without one too.
    """

    status: int
    headers: Mapping[str, str]
    content: Content
    start: int
    stop: int
    chunked: bool = False
    gzipped: bool = False


@dataclass
class Body:
    """The body of a good answer to a GET: bytes written, and when its first and last piece were."""

    path: str
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    sent: int = 0


class Site:
    """What servers answer for. Subclasses give `answer`; `requests` is the log.

    `faults` are those still to come; the first that fits is taken.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._bodies: list[Body] = []

    def sent(self, path: str) -> int:
        """Body bytes sent so far in good answers to GETs whose raw path matches the regex.

        What a client has received is always counted, and what could not be written never is.
        """
        with self._lock:
            return sum(body.sent for body in self._matching(path))

    def together(self, path: str = "") -> int:
        """How many bodies, of the same choice, were at most being sent at one moment.

        A body counts from its first piece to its last: one of a single piece hardly does.
        """
        with self._lock:
            bodies = self._matching(path)
            under_way = (
                sum(body.began <= other.began <= body.last for body in bodies) for other in bodies
            )
            return max(under_way, default=0)

    def body(self, request: Request) -> Body:
        """A new body, in answer to a request."""
        with self._lock:
            self._bodies.append(Body(request.path))
            return self._bodies[-1]

    def write(self, body: Body, piece: bytes, write: Callable[[], object]) -> None:
        """Let `write` send a piece of a body, and count the piece unless that raises."""
        # Before it is sent: a client that has it all may look at the counts at once.
        self._count(body, len(piece), time.monotonic())
        try:
            write()
        except BaseException:
            self._count(body, -len(piece), body.last)
            raise

    def _count(self, body: Body, size: int, last: float) -> None:
        with self._lock:
            body.sent, body.last = body.sent + size, last

    def _matching(self, path: str) -> list[Body]:
        return [body for body in self._bodies if re.search(path, body.path)]

    def answer(self, request: Request) -> Answer:
        """The answer to a request, before any damage to its body."""
        raise NotImplementedError

    def fault_instead(self, request: Request) -> Answer | None:
        """Note a request; the fault that answers it, if there is one."""
        self.requests.append(request)
        fault = self.take_fault(request, in_body=False)
        if fault is None or fault.status is None:
            return None
        return text(fault.status, "A fault was asked for.", fault.headers)

    def take_fault(self, request: Request, *, in_body: bool) -> Fault | None:
        """Use up, once, the first fault that strikes the request, in the body or instead of it."""
        with self._lock:
            for fault in self.faults:
                if (fault.status is None) == in_body and fault.strikes(request):
                    fault.times -= 1
                    return fault
        return None


def part(request: Request, whole: Answer) -> Answer:
    """The part of a file that a GET asks for by Range; else `whole`, which has all of it."""
    headers = {**whole.headers, "Accept-Ranges": "bytes"}
    whole = replace(whole, headers=headers)
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    changed = request.headers.get("if-range", headers.get("ETag")) != headers.get("ETag")
    if wanted is None or not any(wanted.groups()) or changed or request.method != "GET":
        return whole
    first, last = wanted.groups()
    start = int(first) if first else max(whole.stop - int(last), 0)
    stop = min(int(last) + 1, whole.stop) if first and last else whole.stop
    if start >= stop:
        return text(416, "Range Not Satisfiable", {"Content-Range": f"bytes */{whole.stop}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{whole.stop}"
    return Answer(206, headers, whole.content, start, stop)


def text(status: int, words: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = words.encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    return Answer(status, headers, body, 0, len(body))


def signature(link: str) -> str:
    return hmac.new(b"loopback", link.encode(), "sha256").hexdigest()


def pieces(content: Content, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from start to stop, a little at a time: a file may be larger than the memory."""
    stream: BinaryIO = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with stream:
        stream.seek(start)
        while piece := stream.read(min(_PIECE, stop - start)):
            start += len(piece)
            yield piece


class _Handler(BaseHTTPRequestHandler):
    """Reads the requests of one connection and writes the answers, faults included."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        if site.closed.is_set():
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.name, self.command, self.path, headers)
        answer = site.answer(request)
        body = pieces(answer.content, answer.start, answer.stop)
        length = promised = answer.stop - answer.start
        is_good = request.method == "GET" and answer.status in (200, 206)
        fault = site.take_fault(request, in_body=True) if is_good else None
        if fault is not None:
            body = fault.damaged(body)
            promised = length if fault.length is None else fault.length

        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        chunked = answer.chunked or answer.gzipped
        if answer.gzipped:
            body = iter([gzip.compress(b"".join(body))])
        if fault is not None:
            body = fault.paced(body, site.closed)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        if request.method == "HEAD":
            return
        sending = site.body(request) if is_good else None
        # A chunk of no bytes would be the last one.
        for piece in filter(None, body):
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
            if sending is None:
                self.wfile.write(framed)
            else:
                site.write(sending, piece, functools.partial(self.wfile.write, framed))
        if fault is not None and (fault.cut is not None or promised > length):
            self.close_connection = True
            if fault.stall:
                site.closed.wait()
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""


class Server(ThreadingHTTPServer):
    # A client opens eight connections at once, and there may be several clients.
    request_queue_size = 128

    def __init__(
        self, site: Site, name: ServerName = "hub", port: int = 0, *, tls: bool = False
    ) -> None:
        self.site = site
        self.name = name
        self.tls = tls_authority().context if tls else None
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the name of the host, which may ask the network.
        socketserver.TCPServer.server_bind(self)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        # In the connection's own thread: one unfinished handshake must not keep others waiting.
        encrypted = self.tls.wrap_socket(request, server_side=True)
        try:
            super().finish_request(encrypted, client_address)
        finally:
            self.shutdown_request(encrypted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up in the middle, or trusts nobody, is no error of the server.
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


@dataclass(frozen=True)
class Authority:
    """What servers with TLS show, and the certificate, in PEM, that their clients must trust."""

    context: ssl.SSLContext
    ca_file: Path


@functools.cache
def tls_authority() -> Authority:
    """The one of this process: it takes a while to make, and its file is there until the end."""
    # Not at the top: the demo runs the hub where nothing but bundler is installed.
    import trustme

    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost", "hub.example", "cdn.example").configure_cert(context)
    descriptor, name = tempfile.mkstemp(suffix=".pem")
    os.close(descriptor)
    ca.cert_pem.write_to_path(name)
    atexit.register(Path(name).unlink, missing_ok=True)
    return Authority(context, Path(name))


@functools.cache
def closed_port() -> int:
    """A port on 127.0.0.1 that refuses every connection, until the process ends."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        # Bound but deaf, and never closed: nobody else can get the port meanwhile.
        bound.detach()
    return port
