"""Looking up names in threads of their own: others choose the names, and a server that never answers holds a thread for long
after nobody waits for it any more."""

import socket
from typing import Any

import trio

MAX_LOOKUPS = 16
"""At a time; further ones wait. What is dialed by its address waits for none."""


class Names(trio.abc.HostnameResolver):
    """For ``trio.socket.set_custom_hostname_resolver``."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(MAX_LOOKUPS)

    async def getaddrinfo(self, *question: Any) -> Any:
        return await self._look_up(socket.getaddrinfo, question)

    async def getnameinfo(self, *question: Any) -> Any:
        return await self._look_up(socket.getnameinfo, question)

    async def _look_up(self, ask: Any, question: tuple[Any, ...]) -> Any:
        return await trio.to_thread.run_sync(
            ask,
            *question,
            abandon_on_cancel=True,  # type: ignore[call-arg]  # old stubs, by libp2p
            limiter=self._limiter,
        )
