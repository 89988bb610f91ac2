"""Peers, and frames to and from them: what a process of the network sees of libp2p.

One connection with one stream per pair of peers, made by the side that was told to ``connect``, kept up with retries.
A peer that says nothing for ``SILENCE_SECONDS`` is gone, so each side writes at least a ping every ``PING_SECONDS``.

Order: frames up to ``URGENT_BYTES`` arrive in the order they were sent, larger ones too, but the small overtake the large.
Nothing is acknowledged: what was on its way when a connection broke is lost. Per peer the inbox holds
PeerUp, messages, PeerDown, PeerUp, ... strictly in turn.

Everything a peer can make this process keep is bounded in bytes: unread (``connection``), of unfinished frames (``_Held``), in
the inbox, and in its queue.

Nothing here happens for each message: what one read gave goes to the inbox together, and what was sent to a peer in one turn of
the loop is written together.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio

from node.network import link as links
from node.network.callers import Callers
from node.network.connection import HANDSHAKE_SECONDS, UNREAD_BYTES, Connector, host_and_port, peer_id_of, public_key_of
from node.network.events import Message, PeerDown, PeerUp
from node.network.framing import FrameTooLarge
from node.network.inbox import Inbox
from node.network.link import Link
from node.network.stream import Stream
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES

__all__ = ["Transport", "peer_id_of", "public_key_of"]

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
BAN_SECONDS = 5.0
"""How long a peer that broke the framing rules stays away."""

QUEUE_BYTES = 9 << 20
HELD_BYTES = 32 << 20
"""Of unfinished frames of all peers. Beyond it the peer with the most is dropped."""
STRANGER_UNREAD_BYTES = 64 << 10
"""What a peer may have unread where frames are small."""
MAX_STRANGERS = 256
"""Peers that are connected, but not known. One more ends the connection of the oldest of them."""


class _Held:
    """Bytes of unfinished frames, by peer."""

    def __init__(self) -> None:
        self._bytes: dict[Link, int] = {}

    def hold(self, link: Link) -> None:
        """A peer's frame has more bytes now, or is finished."""
        if not link.held:
            self._bytes.pop(link, None)
            return
        self._bytes[link] = link.held
        if sum(self._bytes.values()) > HELD_BYTES:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self.forget(most)
            most.end("too much of it is unfinished")

    def forget(self, link: Link) -> None:
        """It is gone."""
        self._bytes.pop(link, None)


class _Wanted:
    """A peer to keep a connection to, until the transport has another object, or none, for it."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses


class Transport:
    """A host on the network: listens, dials, and exchanges frames with peers known by their public keys."""

    def __init__(
        self,
        key: KeyPair,
        listen: str,
        accept: Callable[[bytes], bool],
        *,
        known: Callable[[bytes], bool] = lambda _: True,
        max_frame: int = MAX_FRAME_BYTES,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """``listen``: multiaddr, port 0 for any. ``accept``: whether a peer that calls, and proved this key, is welcome.
        ``known``: whether it is one of those that always have room; others, strangers, have little. ``max_frame``: largest
        frame that peers may send here. ``queue_bytes``: what may wait for one peer.

        Raises:
            ValueError: ``listen`` is not the multiaddr of a TCP port.
        """
        self.public_key = key.public
        """Who this host is to others."""
        self._listen = host_and_port(listen)
        self._accept, self._known = accept, known
        self._max_frame = max_frame
        self._queue_bytes = queue_bytes
        self._connector = Connector(key, UNREAD_BYTES if max_frame > STRANGER_UNREAD_BYTES else STRANGER_UNREAD_BYTES)
        self._something_to_do = trio.Event()
        self.inbox = Inbox(self._something_to_do_now)
        self._nursery: trio.Nursery | None = None
        self._links: dict[bytes, Link] = {}
        self._unflushed: dict[Link, None] = {}
        self._waiting: dict[Link, None] = {}
        """Those of which something waits for room in the inbox."""
        self._wanted: dict[bytes, _Wanted] = {}
        self._banned: dict[bytes, float] = {}
        self._callers = Callers()
        self._held = _Held()
        self.addresses: tuple[str, ...] = ()
        """Multiaddrs listened on, with the actual port; empty until ``run`` has started."""
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = 0

    @property
    def connected(self) -> frozenset[bytes]:
        """Public keys of the peers with a live connection."""
        return frozenset(peer for peer, link in self._links.items() if link.up)

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
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.addresses = tuple(_multiaddr(listener.socket.getsockname()) for listener in listeners)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for peer, wanted in self._wanted.items():
                    nursery.start_soon(self._keep, peer, wanted)
                nursery.start_soon(self._deliver_and_flush)
                nursery.start_soon(self._tick)
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
        if public_key in self._links:
            self._links[public_key].end("closed here")

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Queue a frame for a peer. Never blocks. False when it was dropped: not connected, or too much waits already.

        Raises:
            ValueError: the frame is empty or larger than MAX_FRAME_BYTES.
        """
        link = self._links.get(peer)
        if link is None or not link.up or not link.queue.put(frame):
            return False
        self._unflushed[link] = None
        self._something_to_do.set()
        self.frames_out += 1
        return True

    def ban(self, peer: bytes) -> None:
        """Drop a peer that sent what no honest one sends, and stay apart from it for ``BAN_SECONDS``."""
        for other in [other for other in self._banned if self._banned_for(other) <= 0]:
            del self._banned[other]
        self._banned[peer] = trio.current_time() + BAN_SECONDS
        if (link := self._links.get(peer)) is not None:
            link.end("banned")

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

        async def talk(peer: bytes, stream: Stream) -> None:
            self._callers.end(handshake)
            await self._talk(peer, stream)

        try:
            await self._connector.converse(tcp, handshake, talk, welcome=self._welcome)
        except* Exception as errors:
            log.debug("inbound connection failed", error=_reason(errors))
        finally:
            self._callers.end(handshake)

    def _welcome(self, peer: bytes) -> bool:
        return self._banned_for(peer) <= 0 and self._accept(peer)

    def _banned_for(self, peer: bytes) -> float:
        """Seconds this peer still has to stay away."""
        return self._banned.get(peer, 0.0) - trio.current_time()

    async def _keep(self, peer: bytes, wanted: _Wanted) -> None:
        """Dial a peer, and dial again whenever the connection ends, as long as it is wanted."""
        delay = FIRST_RETRY_SECONDS
        while self._wanted.get(peer) is wanted:
            began = trio.current_time()
            for address in wanted.addresses:
                if peer in self._links:  # it called meanwhile
                    await self._links[peer].ended.wait()
                try:
                    await self._dial(peer, wanted, address)
                except* Exception as errors:
                    log.debug("cannot connect", peer=peer.hex(), address=address, error=_reason(errors))
            if trio.current_time() - began > HANDSHAKE_SECONDS:
                delay = FIRST_RETRY_SECONDS
            await trio.sleep(max(self._banned_for(peer), delay * random.uniform(0.5, 1.0)))
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _dial(self, peer: bytes, wanted: _Wanted, address: str) -> None:
        """Connect and talk until the connection ends."""

        async def talk(_: bytes, stream: Stream) -> None:
            if self._wanted.get(peer) is wanted:
                await self._talk(peer, stream)

        host, port = host_and_port(address)
        deadline = trio.current_time() + HANDSHAKE_SECONDS
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port)
        await self._connector.converse(tcp, trio.CancelScope(deadline=deadline), talk, dialed=peer)

    # -- live connections ------------------------------------------------------------------------------------------

    async def _talk(self, peer: bytes, stream: Stream) -> None:
        """Exchange frames with a peer until the connection ends. A newer connection takes the place of an older one."""
        while (older := self._links.get(peer)) is not None:
            older.end("there is a newer connection")
            await older.ended.wait()
        link = self._links[peer] = Link(peer, stream, self._queue_bytes, self._max_frame)
        self._limit_strangers()
        self.inbox.put(PeerUp(peer))
        log.info("peer up", peer=peer.hex())
        try:
            with link.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.flush_when_it_was_blocked, self._flush)
                    await self._read(link)
        except* Exception as errors:
            link.end(_reason(errors))
        finally:
            link.up = False
            self._held.forget(link)
            self._unflushed.pop(link, None)
            self._waiting.pop(link, None)
            log.info("peer down", peer=peer.hex(), reason=link.reason)
            self.inbox.put(PeerDown(peer))
            del self._links[peer]
            link.ended.set()

    def _limit_strangers(self) -> None:
        strangers = [peer for peer in self._links if not self._known(peer)]
        if len(strangers) > MAX_STRANGERS:
            self._links[strangers[0]].end("too many strangers")

    async def _read(self, link: Link) -> None:
        while True:
            self.bytes_in += await link.receive()
            self._deliver(link)
            if link.has_more:  # the peer may have made room
                self._flush(link)

    def _deliver(self, link: Link) -> None:
        """What was received of a peer, to the inbox, as far as there is room."""
        try:
            while link.has_unread and self.inbox.has_room:
                frames = link.take()
                self.frames_in += len(frames)
                for frame in frames:
                    self.inbox.put(Message(link.peer, frame))
                self._held.hold(link)
        except (FrameTooLarge, OSError) as error:
            link.end(_reason(error))
            if isinstance(error, FrameTooLarge):
                self.ban(link.peer)
        else:
            if link.has_unread:
                self._waiting[link] = None

    def _flush(self, link: Link) -> None:
        """What was sent to a peer, to its socket."""
        if not link.up:
            return
        try:
            self.bytes_out += link.flush()
        except OSError as error:
            link.end(_reason(error))
        if link.has_more:
            self._unflushed[link] = None
            self._something_to_do.set()

    def _something_to_do_now(self) -> None:
        self._something_to_do.set()

    async def _deliver_and_flush(self) -> None:
        """Once in each turn of the loop in which there is something to deliver or to write."""
        while True:
            await self._something_to_do.wait()
            self._something_to_do = trio.Event()
            while self._waiting and self.inbox.has_room:
                link = next(iter(self._waiting))
                del self._waiting[link]
                self._deliver(link)
            unflushed, self._unflushed = self._unflushed, {}
            for link in unflushed:
                self._flush(link)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(links.PING_SECONDS)
            for link in list(self._links.values()):
                if link.up:
                    try:
                        self.bytes_out += link.tick(link in self._waiting)
                    except OSError as error:
                        link.end(_reason(error))


def _multiaddr(socket_name: tuple[Any, ...]) -> str:
    host, port = socket_name[:2]
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


def _reason(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
