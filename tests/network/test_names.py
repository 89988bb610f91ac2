"""Names that nobody answers for hold up nothing but each other."""

import socket
import threading
from typing import Any

import pytest
import trio

from node.network.names import MAX_LOOKUPS
from node.network.transport import Transport
from node.protocol.keys import generate
from tests.waiting import trio_until


async def test_threads_are_free_for_all_else_while_names_are_looked_up(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    ask, is_over, asked = socket.getaddrinfo, threading.Event(), list[Any]()

    def slow(host: Any, port: Any, family: int = 0, kind: int = 0, protocol: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return ask(host, port, family, kind, protocol, flags)
        asked.append(host)
        is_over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    transport = Transport(generate(), "/ip4/127.0.0.1/tcp/0", lambda _: True)
    await nursery.start(transport.run)
    monkeypatch.setattr("node.network.names.socket.getaddrinfo", slow)
    try:
        for number in range(2 * MAX_LOOKUPS):
            transport.connect(generate().public, [f"/dns4/peer-{number}.example/tcp/8100"])
        await trio_until(lambda: len(asked) == MAX_LOOKUPS)
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        is_over.set()
        nursery.cancel_scope.cancel()
