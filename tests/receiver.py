"""A shop's end of a webhook: an HTTP server that answers as the test says, and keeps what it got."""

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, cast

from tests.waiting import until


class Got(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Serves from the beginning, on a port of its own, until closed.

    Attributes:
        status, headers, body: of the answers.
        broken: connections whose other end did not wait for all of the answer.
        released: answers wait for it.
    """

    def __init__(self, trusted: ssl.SSLContext | None = None, port: int = 0) -> None:
        """``trusted``: the server's certificate, for TLS."""
        self.got: list[Got] = []
        self.status, self.headers, self.body = 200, dict[str, str](), b""
        self.broken = 0
        self.released = threading.Event()
        self.released.set()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        if trusted is not None:
            self._server.socket = trusted.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self.url = f"{'http' if trusted is None else 'https'}://localhost:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def wait(self, count: int, where: Callable[[Got], bool] = lambda got: True) -> list[Got]:
        """The requests that ``where`` is true of, once there are ``count`` of them."""
        return until(lambda: found if len(found := [got for got in self.got if where(got)]) >= count else [], f"{count} requests")

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.receiver.broken += 1


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = cast(_Server, self.server).receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.got.append(Got(self.path, dict(self.headers), body, time.time()))
        receiver.released.wait(30)
        self.send_response(receiver.status)
        for name, value in receiver.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(receiver.body)

    def log_message(self, *_: Any) -> None:
        pass
