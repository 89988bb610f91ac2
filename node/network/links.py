"""The live connections of a process: what peers send goes to its inbox, what it sends to them goes out.

Nothing here happens for each message: what one read gave goes to the inbox together, and what was sent to a peer in one turn of
the loop is written together. Everything a peer can make this process keep is bounded in bytes: unread (``connection``), of
unfinished frames (``_Held``), in the inbox, and in its queue.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import structlog
import trio

from node.network import link as timing
from node.network.beat import next_beat
from node.network.events import Message, PeerDown, PeerUp
from node.network.framing import FrameTooLarge
from node.network.inbox import Inbox
from node.network.link import Link
from node.network.stream import Stream

log = structlog.get_logger(__name__)

BAN_SECONDS = 5.0
"""How long a peer that broke the framing rules stays away."""
HELD_BYTES = 32 << 20
"""Of unfinished frames of all peers. Beyond it the peer with the most is dropped."""
MAX_STRANGERS = 256
"""Peers that are connected, but not known. One more ends the connection of the oldest of them."""
MAX_EARLY_BYTES = 16 << 20
"""Of frames that wait for connections to come about."""
CROSSING_SECONDS = 5
"""Two connections of a pair that came about within that time crossed each other."""


class Visits(NamedTuple):
    """How many peers that are not known may be connected, the least recently used of which goes first; and for how many seconds
    such a connection may be unused."""

    most: int
    seconds: int


VISITS = Visits(most=64, seconds=15)
"""What holds for a node's connections with members of other shards."""


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


class Links:
    """One for each peer at most. Whoever makes a connection has ``talk`` carry it to its end."""

    def __init__(
        self,
        own: bytes,
        known: Callable[[bytes], bool],
        max_frame: int,
        queue_bytes: int,
        visits: Visits | None = None,
    ) -> None:
        """``own``: public key. ``known``: whether a peer always has room; others, strangers, have little. ``max_frame``: largest
        frame that is read. ``queue_bytes``: what may wait for one peer. ``visits``: what holds for strangers, if they come to
        bring something; else they stay until there are too many, and the oldest goes first."""
        self._own = own
        self._known = known
        self._visits = visits
        self._early: dict[bytes, list[bytes]] = {}
        """Frames for peers that are being called."""
        self._early_bytes = 0
        """Of these, and of those that may have to be sent again."""
        self._max_frame = max_frame
        self._queue_bytes = queue_bytes
        self._something_to_do = trio.Event()
        self._gathers = False
        self.inbox = Inbox(self._something_to_do_now)
        self._links: dict[bytes, Link] = {}
        self._unflushed: dict[Link, None] = {}
        self._waiting: dict[Link, None] = {}
        """Those of which something waits for room in the inbox."""
        self._held = _Held()
        self._banned: dict[bytes, float] = {}
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = 0

    @property
    def connected(self) -> frozenset[bytes]:
        """Public keys of the peers with a live connection."""
        return frozenset(peer for peer, link in self._links.items() if link.up)

    def link_to(self, peer: bytes) -> Link | None:
        """The one to this peer, until it has ended."""
        return self._links.get(peer)

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Queue a frame for a peer. Never blocks. False when it was dropped: not connected, or too much waits already.

        Raises:
            ValueError: the frame is empty or larger than MAX_FRAME_BYTES.
        """
        link = self._links.get(peer)
        if link is None or not link.up or not link.queue.put(frame):
            return False
        self._unflushed[link] = None
        if not self._gathers:
            self._something_to_do.set()
        self.frames_out += 1
        link.unused = 0
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent in the ``with`` is written at its end, and not by a task in the next turn of the loop."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
            self._flush_all()

    def _keep_early(self, peer: bytes, frame: bytes) -> bool:
        """A frame for a peer that is being called. False: there is no room."""
        if self._early_bytes + len(frame) > MAX_EARLY_BYTES:
            return False
        self._early[peer].append(frame)
        self._early_bytes += len(frame)
        return True

    def _drop_early(self, frames: list[bytes]) -> None:
        self._early_bytes -= sum(map(len, frames))
        frames.clear()

    def ban(self, peer: bytes) -> None:
        """Drop a peer that sent what no honest one sends, and stay apart from it for ``BAN_SECONDS``."""
        for other in [other for other in self._banned if self.banned_for(other) <= 0]:
            del self._banned[other]
        self._banned[peer] = trio.current_time() + BAN_SECONDS
        if (link := self._links.get(peer)) is not None:
            link.end("banned")

    def banned_for(self, peer: bytes) -> float:
        """Seconds this peer still has to stay away."""
        return self._banned.get(peer, 0.0) - trio.current_time()

    async def talk(self, peer: bytes, stream: Stream, dialed: bool) -> None:
        """Exchange frames with a peer until the connection ends. A newer connection takes the place of an older one; of two that
        crossed each other that stays which the greater key dialed, on both sides. ``dialed``: this side did."""
        again: list[bytes] = []
        while (older := self._links.get(peer)) is not None:
            has_crossed = older.up and older.dialed != dialed and older.age * timing.PING_SECONDS < CROSSING_SECONDS
            if has_crossed and dialed != (self._own > peer):
                return
            if has_crossed:
                again, older.early = older.early, []
            older.end("there is a newer connection")
            await older.ended.wait()
        link = self._links[peer] = Link(peer, stream, self._queue_bytes, self._max_frame, dialed)
        self._limit_strangers()
        self.inbox.put(PeerUp(peer))
        log.info("peer up", peer=peer.hex())
        link.early = again + self._early.pop(peer, [])
        for frame in link.early:
            self.send(peer, frame)
        try:
            with link.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.flush_when_it_was_blocked, self._flush)
                    await self._read(link)
        except* Exception as errors:
            link.end(first_reason(errors))
        finally:
            link.up = False
            self._drop_early(link.early)
            self._held.forget(link)
            self._unflushed.pop(link, None)
            self._waiting.pop(link, None)
            log.info("peer down", peer=peer.hex(), reason=link.reason)
            self.inbox.put(PeerDown(peer))
            del self._links[peer]
            link.ended.set()

    def _limit_strangers(self) -> None:
        strangers = [link for peer, link in self._links.items() if not self._known(peer)]
        if self._visits is None:
            if len(strangers) > MAX_STRANGERS:
                strangers[0].end("too many strangers")
        elif len(strangers) > self._visits.most:
            max(strangers, key=lambda link: link.unused).end("others are used more")

    async def _read(self, link: Link) -> None:
        while True:
            received = await link.receive()  # a sum is read before what it waits for: other links add meanwhile
            self.bytes_in += received
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
            link.end(first_reason(error))
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
            link.end(first_reason(error))
        if link.has_more:
            self._unflushed[link] = None
            self._something_to_do.set()

    def _something_to_do_now(self) -> None:
        self._something_to_do.set()

    async def deliver_and_flush(self) -> None:
        """Once in each turn of the loop in which there is something to deliver or to write."""
        while True:
            await self._something_to_do.wait()
            self._something_to_do = trio.Event()
            while self._waiting and self.inbox.has_room:
                link = next(iter(self._waiting))
                del self._waiting[link]
                self._deliver(link)
            self._flush_all()

    def _flush_all(self) -> None:
        unflushed, self._unflushed = self._unflushed, {}
        for link in unflushed:
            self._flush(link)

    async def tick(self) -> None:
        while True:
            await next_beat(timing.PING_SECONDS)
            for link in list(self._links.values()):
                if link.up:
                    try:
                        self.bytes_out += link.tick(link in self._waiting)
                    except OSError as error:
                        link.end(first_reason(error))
                if link.age * timing.PING_SECONDS >= CROSSING_SECONDS:
                    self._drop_early(link.early)
                if self._visits is not None and link.unused > self._visits.seconds and not self._known(link.peer):
                    link.end("nothing to say")


def first_reason(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
