"""The HTTP server: uvicorn, which ends at once when told to, sends each answer with one system call, and lets no client hold
a connection for nothing."""

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.identity.throttle import client_of
from gateway.languages import LANGUAGES, words

LINGER = 10.0
"""Seconds."""
HEAD_SECONDS = 10.0
"""From a connection's beginning, or a request's first byte, to the end of its header."""
BODY_SECONDS = 30.0
"""From there to the end of its body."""
IDLE_SECONDS = 30
"""From an answer to the next request."""
WRITE_SECONDS = 30.0
"""That a client may take nothing of an answer."""
MAX_HEAD_BYTES = 32 << 10
"""The request line and all headers."""


class Server(uvicorn.Server):
    """Calls ``on_exit`` when told to end, before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


class Places:
    """Connections there may be at a time, so that files are left for the rest: three quarters of what the process may open, and
    for one client half of that. A proxy that is trusted speaks for many, and may have them all."""

    def __init__(self, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self.most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
        self._proxies = proxies
        self._taken = Counter[str]()

    def take(self, address: str) -> bool:
        """Whether there is one for this address; then it is to be given back."""
        client = client_of(address)
        free = self._taken.total() < self.most and (self._taken[client] < self.most // 2 or self._is_proxy(address))
        if free:
            self._taken[client] += 1
        return free

    def give_back(self, address: str) -> None:
        client = client_of(address)
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]

    def _is_proxy(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self._proxies)


class Connection(HttpToolsProtocol):
    """uvicorn's, with limits. It writes an answer's head and body one after the other: they leave together."""

    def __init__(self, places: Places, **parts: Any) -> None:
        super().__init__(**parts)
        self._places, self._placed, self._address = places, False, ""
        self._requests, self._head_bytes = 0, 0
        self._in_message = self._in_body = False
        self._awaited: tuple[int, float] | None = None  # the request that is timed, and how long that part of it may take
        self._deadline: asyncio.TimerHandle | None = None
        self._slow_writing: asyncio.TimerHandle | None = None
        self._refusal = (400, "bad_request")

    def connection_made(self, transport: Any) -> None:
        self._address = (transport.get_extra_info("peername") or ("",))[0]
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]  # all of a transport that uvicorn uses
        self._placed = self._places.take(self._address)
        if self._placed:
            self._watch()
        else:
            self._refuse(503, "overloaded")

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._slow_writing):
            if timer is not None:
                timer.cancel()
        if self._placed:
            self._places.give_back(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        begun = self._in_message and not self._in_body
        super().data_received(data)
        if self._in_message and not self._in_body:
            self._head_bytes += len(data) if begun else self._head_size  # with the end of another request's body before it
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "headers_too_large")
        if not self.transport.is_closing():
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._requests += 1
        self._head_bytes, self._in_message, self._in_body = 0, True, False

    def on_headers_complete(self) -> None:
        if self._head_size > MAX_HEAD_BYTES:
            self._refusal = (431, "headers_too_large")
            raise ValueError("headers too large")  # the parser ends, and asks for the answer below
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        self._in_message = self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow_writing = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._slow_writing is not None:
            self._slow_writing.cancel()

    def _watch(self) -> None:
        """Time what the client owes now. A request that came whole is not timed: the answer is ours to give."""
        awaited = None
        if self._in_body:
            awaited = (self._requests, BODY_SECONDS)
        elif self._answered and self.timeout_keep_alive_task is None:
            awaited = (self._requests, HEAD_SECONDS)
        if awaited != self._awaited:
            self._awaited = awaited
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = None if awaited is None else self.loop.call_later(awaited[1], self._too_slow)

    @property
    def _head_size(self) -> int:
        """Bytes of what has been read of a request line and headers."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    @property
    def _answered(self) -> bool:
        """Nothing that was asked waits for an answer."""
        return self.cycle is None or self.cycle.response_complete

    def _too_slow(self) -> None:
        if self._in_message:
            self._refuse(408, "request_timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str) -> None:
        """Answer what cannot be read as a request, unless an answer to another one is due first, and hang up."""
        unfinished = self._in_body and not self.pipeline and not self.cycle.response_started
        if self._answered or unfinished:
            title = words(LANGUAGES[0], f"error.{code}")
            problem = {"type": f"urn:shardpay:problem:{code}", "title": title, "status": status, "detail": title, "code": code}
            body = json.dumps(problem).encode()
            headers = b"content-type: application/problem+json\r\nx-content-type-options: nosniff\r\nconnection: close\r\n"
            self.transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (STATUS_LINE[status], len(body), headers, body))
        self.transport.close()


class OneWrite:
    """A transport that holds what is written until the loop's next turn. For the rest it is the one it was made from."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            asyncio.get_running_loop().call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """At once, or when what was written has left; but who takes nothing is not waited for longer than ``LINGER``."""
        self._flush()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            whole = b"".join(self._held)
            self._held.clear()
            if not self._transport.is_closing():
                self._transport.write(whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
