"""Peers, and frames to and from them: what a process of the network sees of libp2p.

One connection with one stream per pair of peers. Either it is made by the side that was told to ``connect``, and kept up with
retries; or by whoever has something to send to a peer that can be ``reach``ed, and ends when it is not used any more.
A peer that says nothing for ``SILENCE_SECONDS`` is gone, so each side writes at least a ping every ``PING_SECONDS``.

Order: frames up to ``URGENT_BYTES`` arrive in the order they were sent, larger ones too, but the small overtake the large.
Nothing is acknowledged: what was on its way when a connection broke is lost. Per peer the inbox holds
PeerUp, messages, PeerDown, PeerUp, ... strictly in turn.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
import trio

from node.network.callers import Callers
from node.network.connection import (
    HANDSHAKE_SECONDS,
    UNREAD_BYTES,
    VERSIONS,
    Connector,
    NoCommonVersion,
    host_and_port,
    peer_id_of,
    public_key_of,
)
from node.network.links import Links, Visits, first_reason
from node.network.names import Names
from node.network.stream import Stream
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES

__all__ = ["Transport", "peer_id_of", "public_key_of"]

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
QUEUE_BYTES = 9 << 20
MAX_CALLS = 32
"""Connections under way because there is something to send."""
_MAX_STRANGE = 1024
STRANGER_UNREAD_BYTES = 64 << 10
"""What a peer may have unread where frames are small."""


class _Wanted:
    """A peer to keep a connection to, until the transport has another object, or none, for it."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses


class Transport(Links):
    """A host on the network: its live connections, and how they come about: it listens, and dials."""

    def __init__(
        self,
        key: KeyPair,
        listen: str,
        accept: Callable[[bytes], bool],
        *,
        known: Callable[[bytes], bool] = lambda _: True,
        max_frame: int = MAX_FRAME_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        visits: Visits | None = None,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        """``listen``: multiaddr, port 0 for any. ``accept``: whether a peer that calls, and proved this key, is welcome.
        ``known``: whether it is one of those that always have room; others, strangers, have little. ``max_frame``: largest
        frame that peers may send here. ``queue_bytes``: what may wait for one peer. ``visits``: how many strangers, and for how
        long, if they come to bring something. ``versions``: of the protocol, that are spoken.

        Raises:
            ValueError: ``listen`` is not the multiaddr of a TCP port; no versions, or too many.
        """
        self.public_key = key.public
        """Who this host is to others."""
        self._listen = host_and_port(listen)
        super().__init__(key.public, known, max_frame, queue_bytes, visits)
        self._accept = accept
        unread = UNREAD_BYTES if max_frame > STRANGER_UNREAD_BYTES else STRANGER_UNREAD_BYTES
        self._connector = Connector(key, unread, versions)
        self._reachable: Mapping[bytes, Sequence[str]] = {}
        self._strange: set[bytes | None] = set()
        """Peers, or None for callers, of which it was said that they speak no version that is spoken here."""
        self._nursery: trio.Nursery | None = None
        self._wanted: dict[bytes, _Wanted] = {}
        self._callers = Callers()
        self.addresses: tuple[str, ...] = ()
        """Multiaddrs listened on, with the actual port; empty until ``run`` has started."""

    async def run(
        self,
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,  # type: ignore[name-defined]  # old stubs, by libp2p
    ) -> None:
        """Listen, and keep the connections asked for, until cancelled. Then the inbox ends. Runs once.

        Raises:
            OSError: the address cannot be listened on.
        """
        host, port = self._listen
        trio.socket.set_custom_hostname_resolver(Names())
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
            self.addresses = tuple(_multiaddr(listener.socket.getsockname()) for listener in listeners)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for peer, wanted in self._wanted.items():
                    nursery.start_soon(self._keep, peer, wanted)
                nursery.start_soon(self.deliver_and_flush)
                nursery.start_soon(self.tick)
                nursery.start_soon(trio.serve_listeners, self._answer, listeners)
                task_status.started()
        finally:
            self._nursery = None
            self.inbox.close()

    def connect(self, public_key: bytes, addresses: Sequence[str]) -> None:
        """Keep a connection to this peer from now on, by dialing one of its multiaddrs. New addresses replace the old.

        Only one side of a pair may do this. Addresses that make no sense are failed attempts: they come from others.

        Raises:
            ValueError: ``public_key`` is none, or this host's own.
        """
        peer_id_of(public_key)
        if public_key == self.public_key:
            raise ValueError("a host does not connect to itself")
        if public_key in self._wanted:
            self._wanted[public_key].addresses = tuple(addresses)
            return
        wanted = self._wanted[public_key] = _Wanted(tuple(addresses))
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, public_key, wanted)

    def disconnect(self, public_key: bytes) -> None:
        """Stop keeping a connection to this peer, and close the one there is, whoever made it."""
        self._wanted.pop(public_key, None)
        if (link := self.link_to(public_key)) is not None:
            link.end("closed here")

    def reach(self, addresses: Mapping[bytes, Sequence[str]]) -> None:
        """From now on these peers, by public key, are called when there is something to send to them, and no others are."""
        self._reachable = addresses

    def send(self, peer: bytes, frame: bytes) -> bool:
        """As ``Links.send``; where there is no connection, one is made if the peer can be reached. What waits for it is lost if
        nobody answers."""
        link = self.link_to(peer)
        if (link is not None and link.up) or peer not in self._reachable:
            return super().send(peer, frame)
        if not 0 < len(frame) <= MAX_FRAME_BYTES:
            raise ValueError(f"a frame has 1 to {MAX_FRAME_BYTES} bytes, not {len(frame)}")
        if peer in self._early:
            return self._keep_early(peer, frame)
        if self._nursery is None or len(self._early) >= MAX_CALLS or self.banned_for(peer) > 0:
            return False
        self._early[peer] = []
        self._nursery.start_soon(self._call, peer, self._early[peer])
        return self._keep_early(peer, frame)

    async def _call(self, peer: bytes, early: list[bytes]) -> None:
        """Dial a peer once at each of its addresses, and talk until the connection ends."""
        try:
            for address in self._reachable.get(peer, ()):
                try:
                    await self._dial(peer, address, lambda: True)
                except* Exception as errors:
                    self._failed(peer, address, errors)
                if self._early.get(peer) is not early:  # there was a connection, or it called meanwhile
                    return
        finally:
            if self._early.get(peer) is early:
                self._drop_early(self._early.pop(peer))

    def _failed(self, peer: bytes | None, address: str, errors: BaseExceptionGroup[Exception]) -> None:
        """Tell why there is no connection; loudly, but once for each peer, if the two have no version in common."""
        if peer in self._strange or errors.subgroup(NoCommonVersion) is None:
            log.debug("no connection", peer=peer and peer.hex(), address=address, error=first_reason(errors))
            return
        if len(self._strange) >= _MAX_STRANGE:
            self._strange.clear()
        self._strange.add(peer)
        log.warning("no common protocol version", peer=peer and peer.hex(), address=address, error=first_reason(errors))

    async def _answer(self, tcp: trio.SocketStream) -> None:
        """Serve an inbound connection from its first byte to its last."""
        handshake = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_SECONDS)
        try:
            is_heard = self._callers.begin(tcp.socket.getpeername()[0], handshake, trio.current_time())
        except OSError:  # gone already
            is_heard = False
        if not is_heard:
            await trio.aclose_forcefully(tcp)
            return

        caller: bytes | None = None

        async def talk(peer: bytes, stream: Stream) -> None:
            self._callers.end(handshake)
            await self.talk(peer, stream, dialed=False)

        def welcome(peer: bytes) -> bool:
            nonlocal caller
            caller = peer
            return self._welcome(peer)

        try:
            await self._connector.converse(tcp, handshake, talk, welcome=welcome)
        except* Exception as errors:
            self._failed(caller, "inbound", errors)
        finally:
            self._callers.end(handshake)

    def _welcome(self, peer: bytes) -> bool:
        return self.banned_for(peer) <= 0 and self._accept(peer)

    async def _keep(self, peer: bytes, wanted: _Wanted) -> None:
        """Dial a peer, and dial again whenever the connection ends, as long as it is wanted."""
        delay = FIRST_RETRY_SECONDS
        while self._wanted.get(peer) is wanted:
            began = trio.current_time()
            for address in wanted.addresses:
                if (link := self.link_to(peer)) is not None:  # it called meanwhile
                    await link.ended.wait()
                try:
                    await self._dial(peer, address, lambda: self._wanted.get(peer) is wanted)
                except* Exception as errors:
                    self._failed(peer, address, errors)
            if trio.current_time() - began > HANDSHAKE_SECONDS:
                delay = FIRST_RETRY_SECONDS
            await trio.sleep(max(self.banned_for(peer), delay * random.uniform(0.5, 1.0)))
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _dial(self, peer: bytes, address: str, is_wanted: Callable[[], bool]) -> None:
        """Connect and talk until the connection ends."""

        async def talk(_: bytes, stream: Stream) -> None:
            self._strange.discard(peer)
            if is_wanted():
                await self.talk(peer, stream, dialed=True)

        host, port = host_and_port(address)
        deadline = trio.current_time() + HANDSHAKE_SECONDS
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port)
        await self._connector.converse(tcp, trio.CancelScope(deadline=deadline), talk, dialed=peer)


def _multiaddr(socket_name: tuple[Any, ...]) -> str:
    host, port = socket_name[:2]
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"
