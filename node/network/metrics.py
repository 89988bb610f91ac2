"""What Prometheus and a health check read of a process: a registry, and a small HTTP server on trio's loop.

Its clients are bounded in number and in time, which prometheus-client's own server, a thread for each connection, is not.
"""

from http import HTTPStatus

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

STALE_SECONDS = 10.0
"""Without a sign of life for so long the process counts as stuck."""
REQUEST_SECONDS = 5.0
"""From a connection to its end."""
MAX_CONNECTIONS = 16

_REQUEST_BYTES = 8192


class Exporter:
    """Serves a process's metrics. Those of its CPU, memory and open files are in ``registry`` from the start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._alive_at: float | None = None
        self._connections = 0

    def alive(self) -> None:
        """The sign of life behind /healthz: to be given once a second."""
        self._alive_at = trio.current_time()

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: "trio.TaskStatus[int]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Serve GET /metrics and /healthz (503 when stuck) until cancelled; ``started`` with the port.

        Raises:
            OSError: cannot listen there; the text says where and why.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise OSError(error.errno, f"cannot serve metrics on {host} port {port}: {error.strerror or error}") from None
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        """One request, one answer, close: whatever a client does here must not harm the node."""
        if self._connections >= MAX_CONNECTIONS:
            await stream.aclose()
            return
        self._connections += 1
        try:
            with trio.move_on_after(REQUEST_SECONDS):
                await stream.send_all(self._response(await _request_line(stream)))
        except trio.BrokenResourceError:
            pass  # gone
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    def _response(self, request: list[bytes]) -> bytes:
        match request:
            case [b"GET" | b"HEAD", target, _]:
                status, kind, body = self._page(target.partition(b"?")[0])
            case _:
                status, kind, body = HTTPStatus.BAD_REQUEST, "text/plain", b"bad request\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if request[:1] == [b"HEAD"] else body)

    def _page(self, path: bytes) -> tuple[HTTPStatus, str, bytes]:
        if path == b"/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry)
        if path == b"/healthz":
            if self._alive_at is None:
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"starting\n"
            if (silent := trio.current_time() - self._alive_at) > STALE_SECONDS:
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"stuck for {silent:.0f} s\n".encode()
            return HTTPStatus.OK, "text/plain", b"ok\n"
        return HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics and /healthz\n"


async def _request_line(stream: trio.SocketStream) -> list[bytes]:
    """Read a request's head and split its first line; empty when it is too long or cut off."""
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some(_REQUEST_BYTES)
        head += chunk
        if not chunk or len(head) > _REQUEST_BYTES:
            return []
    return head.partition(b"\r\n")[0].split(b" ")
