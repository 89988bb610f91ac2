"""Peers, and frames to and from them: what a process of the network sees of libp2p.

One connection with one stream per pair of peers, made by the side that was told to ``connect``, kept up with retries.
A peer that says nothing for ``SILENCE_SECONDS`` is gone, so each side writes at least a ping every ``PING_SECONDS``.

Order: frames up to ``URGENT_BYTES`` arrive in the order they were sent, larger ones too, but the small overtake the large.
Nothing is acknowledged: what was on its way when a connection broke is lost. Per peer the inbox holds
PeerUp, messages, PeerDown, PeerUp, ... strictly in turn.

Everything a peer can make this process keep is bounded in bytes: unread (``connection``), of unfinished frames and of those that
the inbox has no room for (``_Held``), in the inbox, and in its queue.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import trio

from node.network.callers import Callers
from node.network.connection import HANDSHAKE_SECONDS, UNREAD_BYTES, Connector, host_and_port, peer_id_of, public_key_of
from node.network.events import Inbound, Message, PeerDown, PeerUp
from node.network.framing import PING, FrameDecoder, FrameTooLarge, SendQueue
from node.protocol.crypto import KeyPair
from node.protocol.limits import MAX_FRAME_BYTES

__all__ = ["Transport", "peer_id_of", "public_key_of"]

log = structlog.get_logger(__name__)

PING_SECONDS = 1.0
SILENCE_SECONDS = 5.0
"""A peer that sends nothing, or takes nothing, for this long is gone."""
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
BAN_SECONDS = 5.0
"""How long a peer that broke the framing rules stays away."""

FRAME_SECONDS = 10.0
"""From the first byte of a frame to its last, at most."""

READ_BYTES = 256 << 10
QUEUE_BYTES = 9 << 20
INBOX_ITEMS = 1024
INBOX_BYTES = 8 << 20
"""Beyond it frames wait; one is taken in before it is counted."""
HELD_BYTES = 32 << 20
"""Of frames of all peers that are unfinished, or wait for room in the inbox. Beyond it the peer with the most is dropped."""
STRANGER_UNREAD_BYTES = 64 << 10
"""What a peer may have unread where frames are small."""
MAX_STRANGERS = 256
"""Peers that are connected, but not known. One more ends the connection of the oldest of them."""


class _Link:
    """A peer's live connection."""

    def __init__(self, queue_bytes: int) -> None:
        self.queue = SendQueue(queue_bytes)
        self.wakeup = trio.Event()
        self.scope = trio.CancelScope()
        self.up = True
        self.ended = trio.Event()


class _Inbox:
    """The sending side of the inbox: bounded in items by its channel, in bytes by asking what is still in there."""

    def __init__(self, channel: trio.MemorySendChannel[Inbound]) -> None:
        self.channel = channel
        self._sizes: deque[int] = deque()
        self._bytes = 0

    async def put(self, item: Inbound, size: int) -> None:
        while self._bytes > INBOX_BYTES or len(self._sizes) > 2 * INBOX_ITEMS:
            self._forget_consumed()
            if self._bytes > INBOX_BYTES:
                await trio.sleep(0.005)  # the channel has no way to tell when it shrinks
        try:
            self.channel.send_nowait(item)  # send() would yield to the scheduler for each message
        except trio.WouldBlock:
            await self.channel.send(item)
        self._sizes.append(size)
        self._bytes += size

    def _forget_consumed(self) -> None:
        waiting = self.channel.statistics().current_buffer_used
        while len(self._sizes) > waiting:
            self._bytes -= self._sizes.popleft()


class _Held:
    """Bytes that each peer makes this process hold on the way to the inbox."""

    def __init__(self) -> None:
        self._bytes: dict[_Link, int] = {}

    def hold(self, link: _Link, size: int) -> None:
        """A peer's frames have so many bytes now."""
        self._bytes[link] = size
        if sum(self._bytes.values()) > HELD_BYTES:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self.forget(most)
            most.scope.cancel()

    def forget(self, link: _Link) -> None:
        """It holds nothing any more."""
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
        send, self.inbox = trio.open_memory_channel[Inbound](INBOX_ITEMS)
        self._inbox = _Inbox(send)
        self._nursery: trio.Nursery | None = None
        self._links: dict[bytes, _Link] = {}
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
        with self._inbox.channel:
            listeners = await trio.open_tcp_listeners(port, host=host)
            self.addresses = tuple(_multiaddr(listener.socket.getsockname()) for listener in listeners)
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for peer, wanted in self._wanted.items():
                        nursery.start_soon(self._keep, peer, wanted)
                    nursery.start_soon(trio.serve_listeners, self._answer, listeners)
                    task_status.started()
            finally:
                self._nursery = None

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
            self._links[public_key].scope.cancel()

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Queue a frame for a peer. Never blocks. False when it was dropped: not connected, or too much waits already.

        Raises:
            ValueError: the frame is empty or larger than MAX_FRAME_BYTES.
        """
        link = self._links.get(peer)
        if link is None or not link.up or not link.queue.put(frame):
            return False
        link.wakeup.set()
        self.frames_out += 1
        return True

    def ban(self, peer: bytes) -> None:
        """Drop a peer that sent what no honest one sends, and stay apart from it for ``BAN_SECONDS``."""
        for other in [other for other in self._banned if self._banned_for(other) <= 0]:
            del self._banned[other]
        self._banned[peer] = trio.current_time() + BAN_SECONDS
        if (link := self._links.get(peer)) is not None:
            link.scope.cancel()

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

        async def talk(peer: bytes, stream: Any) -> None:
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

        async def talk(_: bytes, stream: Any) -> None:
            if self._wanted.get(peer) is wanted:
                await self._talk(peer, stream)

        host, port = host_and_port(address)
        deadline = trio.current_time() + HANDSHAKE_SECONDS
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port)
        await self._connector.converse(tcp, trio.CancelScope(deadline=deadline), talk, dialed=peer)

    async def _talk(self, peer: bytes, stream: Any) -> None:
        """Exchange frames with a peer until the connection ends. A newer connection takes the place of an older one."""
        while (older := self._links.get(peer)) is not None:
            older.scope.cancel()
            await older.ended.wait()
        link = self._links[peer] = _Link(self._queue_bytes)
        self._limit_strangers()
        reason = "closed here"
        try:
            await self._inbox.put(PeerUp(peer), 0)
            log.info("peer up", peer=peer.hex())
            try:
                with link.scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._write, link, stream)
                        nursery.start_soon(self._read, peer, link, stream)
            except* Exception as errors:
                reason = _reason(errors)
            link.up = False
            log.info("peer down", peer=peer.hex(), reason=reason)
            await self._inbox.put(PeerDown(peer), 0)
        finally:
            link.up = False
            self._held.forget(link)
            del self._links[peer]
            link.ended.set()

    def _limit_strangers(self) -> None:
        strangers = [peer for peer in self._links if not self._known(peer)]
        if len(strangers) > MAX_STRANGERS:
            self._links[strangers[0]].scope.cancel()

    async def _read(self, peer: bytes, link: _Link, stream: Any) -> None:
        decoder, due = FrameDecoder(self._max_frame), math.inf
        while True:
            with trio.fail_at(min(trio.current_time() + SILENCE_SECONDS, due)):
                data = await stream.read(READ_BYTES)
            self.bytes_in += len(data)
            try:
                frames = decoder.feed(data)
            except FrameTooLarge:
                self.ban(peer)
                raise
            self.frames_in += len(frames)
            self._held.hold(link, decoder.size + sum(map(len, frames)))
            for frame in frames:
                await self._inbox.put(Message(peer, frame), len(frame))
            self._held.hold(link, decoder.size)
            if not decoder.size:
                due = math.inf
            elif frames or due == math.inf:  # time that the inbox took is not the peer's
                due = trio.current_time() + FRAME_SECONDS

    async def _write(self, link: _Link, stream: Any) -> None:
        while True:
            data = link.queue.take()
            if not data:
                link.wakeup = trio.Event()
                with trio.move_on_after(PING_SECONDS):
                    await link.wakeup.wait()
                    continue
                data = PING
            # A write that was cancelled leaves the connection unusable; here every end of this task ends it anyway.
            with trio.fail_after(SILENCE_SECONDS):
                await stream.write(data)
            self.bytes_out += len(data)


def _multiaddr(socket_name: tuple[Any, ...]) -> str:
    host, port = socket_name[:2]
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


def _reason(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
