"""The HTTP server: uvicorn, which ends at once when told to, and sends each answer with one system call."""

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER = 10.0
"""Seconds."""


class Server(uvicorn.Server):
    """Calls ``on_exit`` when told to end, before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


class Connection(HttpToolsProtocol):
    """uvicorn writes an answer's head and body one after the other: they leave together."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]  # all of a transport that uvicorn uses


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
