"""A proxy on 127.0.0.1, for http and, through tunnels, for https.

    with LoopbackProxy() as proxy:
        proxy.hosts["hub.example:80"] = ("127.0.0.1", port_of_the_hub)
        ...                                         # a client with HTTP_PROXY=proxy.url
        assert proxy.requests[0].target == "hub.example:80"

Nobody but the proxy knows where the names in `hosts` lead: what arrives there came through it.
"""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote, urlsplit

# What concerns the client and the proxy only.
_FOR_THE_PROXY = ("connection", "keep-alive", "proxy-authorization", "proxy-connection")


@dataclass(frozen=True)
class ProxyRequest:
    """One request as it arrived, refused or not: `target` is host:port, header names lower-case."""

    method: str
    target: str
    headers: dict[str, str]


class LoopbackProxy:
    """The proxy. Use it as a context manager.

    Attributes that tests may set at any time:
      hosts     where "name:port" leads; 127.0.0.1 and localhost are known, all else is 502
      login     the one user and password that may pass; others get 407
      refuse    True: 403 for everybody
    """

    def __init__(self, *, login: tuple[str, str] | None = None) -> None:
        self.requests: list[ProxyRequest] = []
        self.hosts: dict[str, tuple[str, int]] = {}
        self.login = login
        self.refuse = False
        self._server = _Server(self)
        self._address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackProxy:
        # The argument is how long, in seconds, leaving the context may take.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.hang_up()
        # Waits for the threads of all connections.
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where the proxy is, for clients that do not log in."""
        return f"http://{self._address}"

    @property
    def url_with_login(self) -> str:
        """The same with the user and password that may pass."""
        user, password = (quote(part, safe="") for part in self.login or ("", ""))
        return f"http://{user}:{password}@{self._address}"

    def refusal(self, request: ProxyRequest) -> tuple[int, dict[str, str]] | None:
        """Status and headers for a client that may not pass."""
        if self.refuse:
            return 403, {}
        login = ":".join(self.login or ()).encode()
        expected = f"Basic {base64.b64encode(login).decode()}"
        if self.login and request.headers.get("proxy-authorization") != expected:
            return 407, {"Proxy-Authenticate": 'Basic realm="loopback"'}
        return None

    def connect(self, target: str) -> socket.socket:
        """A connection to a target; OSError if it is unknown or does not answer."""
        host, _, port = target.rpartition(":")
        if target in self.hosts:
            address = self.hosts[target]
        elif host in ("127.0.0.1", "localhost"):
            address = ("127.0.0.1", int(port))
        else:
            raise OSError(f"unknown host: {target}")
        upstream = socket.create_connection(address)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return upstream


class _Handler(BaseHTTPRequestHandler):
    """One connection: one request, or one tunnel."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Nothing is read ahead: what follows the head goes on to the target.
    rbufsize = 0
    server: _Server

    def do_CONNECT(self) -> None:
        self._forward(self.path.lower(), None)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.scheme != "http" or not address.hostname:
            self._end(400)
            return
        # Character for character as it came: some are percent-encoded, and must stay so.
        path = self.path.partition(address.netloc)[2] or "/"
        head = [f"{self.command} {path} HTTP/1.1"]
        for name, value in self.headers.items():
            if name.lower() not in _FOR_THE_PROXY:
                head.append(f"{name}: {value}")
        head += ["Connection: close", "", ""]
        target = f"{address.hostname}:{address.port or 80}"
        self._forward(target, "\r\n".join(head).encode("latin-1"))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _forward(self, target: str, head: bytes | None) -> None:
        """Send a request on to its target; without a head, make a tunnel to it."""
        proxy = self.server.proxy
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = ProxyRequest(self.command, target, headers)
        proxy.requests.append(request)
        refusal = proxy.refusal(request)
        if refusal is not None:
            self._end(*refusal)
            return
        try:
            upstream = proxy.connect(target)
        except OSError:
            self._end(502)
            return
        self.close_connection = True
        with upstream, self.server.known(upstream):
            if head is None:
                self.send_response(200, "Connection established")
                self.end_headers()
            else:
                upstream.sendall(head)
                with upstream.makefile("rb", buffering=0) as answer:
                    status_line = answer.readline()
                if not status_line:
                    return
                # The client must be told not to send another request this way.
                self.wfile.write(status_line + b"Connection: close\r\n")
            _relay(self.connection, upstream)

    def _end(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        headers = {"Content-Length": "0", "Connection": "close", **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""


def _relay(client: socket.socket, upstream: socket.socket) -> None:
    """Pass on all bytes both ways, until both sides have ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, (client, upstream))
        selector.register(upstream, selectors.EVENT_READ, (upstream, client))
        while selector.get_map():
            for key, _ in selector.select():
                source, sink = key.data
                # A side that hears no more may have said something that is still under way.
                with contextlib.suppress(OSError):
                    if received := source.recv(64 * 1024):
                        sink.sendall(received)
                        continue
                selector.unregister(source)
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, proxy: LoopbackProxy) -> None:
        self.proxy = proxy
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._stops = False
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.known(request):
            super().finish_request(request, client_address)

    @contextlib.contextmanager
    def known(self, connection: socket.socket) -> Iterator[None]:
        """While this lasts, `hang_up` ends the connection; ConnectionError if it already has."""
        with self._lock:
            if self._stops:
                raise ConnectionAbortedError("the proxy stops")
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.remove(connection)

    def hang_up(self) -> None:
        """End all connections, now and from now on: their threads find them closed."""
        with self._lock:
            self._stops = True
            for connection in self._connections:
                # The other side may have been faster.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That one side hangs up in the middle is no error of the proxy.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
