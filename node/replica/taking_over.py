"""Taking over: a member that is far behind asks for the state as of a checkpoint, instead of for all blocks up to it.

    nothing chosen    every peer that is far ahead is asked for a checkpoint; the highest is chosen that f + 1 offer and that is
                      proven, or, where there is none, the highest
    chosen            its parts are asked for, several of several peers at once, from the root of the tree down: what a part must
                      hash to is known before it is asked for; then the ids that rows of the replay set commit to
    whole             all of it is stored: the ledger begins anew with it

Who sends a part that is another is a liar. Who is silent is asked again later, each time only after twice as long, and others are
asked for the same. When f + 1 peers do not have the checkpoint any more, or nothing comes for long, another one is chosen, and
until then blocks are asked for. Nothing of what was stored of the first one is used, nor after a restart: it is held for so long
that few begin again.

Meanwhile the chain went on, and with many rows by more blocks than make a member far behind: who was handed a state asks for the
blocks since, however many, as long as some come. Else it would take over one state after the other.
"""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from node.effects import BeginHandoff, Send, StoreParts
from node.ledger.commitment import branch_root, subtree_root
from node.ledger.replay import commits_to
from node.ledger.rows import REPLAYED, Replayed
from node.protocol.certificate import Electorate
from node.protocol.checkpoint import Branching, CertifiedCheckpoint, Ids, Part, Rows, work_of
from node.protocol.codec import decode
from node.protocol.crypto import HASH_BYTES, ZERO_HASH
from node.protocol.limits import MAX_PART_ROWS
from node.protocol.messages import CheckpointRequest, PartsReply, PartsRequest
from node.protocol.reports import Notable

FAR_BEHIND = 1_000
"""So many blocks are executed rather than a state taken over, with which come no older blocks, for clients and for others who are
behind. An empty disk has none anyway."""
_PACE = 100
"""From an answer to the next request to the same peer, ms: so long it takes until a peer serves the next."""
_TIMEOUT = 3_000
_SLOW = 500
"""After so long, ms, others are asked for the same; and nobody is waited for who may offer a better checkpoint."""
_PAUSE = 3_000
"""Between letting go of a checkpoint and asking for another one, ms."""
_OFFERS_PAUSE = 5_000
_STUCK = 15_000
_PLACES = 16
_MAX_PENALTY = 6
_WHOLE = 1 << 64
_FAR_AWAY = 1 << 62


class Forged(Exception):
    """A peer sent what no honest one sends."""


class _Request(Struct, frozen=True):
    """For parts in these places; without any, for the peer's newest checkpoint."""

    places: tuple[bytes, ...]
    at: int


class _Peer(Struct):
    """``failures``: requests in a row that it did not answer. ``not_before``: when it may be asked again. ``is_without``: whether
    it does not have the checkpoint chosen."""

    height: int = 0
    failures: int = 0
    not_before: int = 0
    is_without: bool = False


class TakingOver:
    """Times are monotonic milliseconds; peers are public keys.

    Attributes:
        chosen: the checkpoint that is being taken over; None: none is.
        rows: how many of it are here.
        deadline: when ``next_requests`` is to be called again, if nothing happens before.
    """

    def __init__(
        self,
        electorate: Electorate,
        height: int,
        first_certified: int,
        is_opened: bool = False,
        is_handed_over: bool = False,
    ) -> None:
        """``height``: the own one. ``first_certified``: the least at which somebody may have a certified checkpoint.
        ``is_opened``: whether there is a state at height 0 that others would have to hand over. ``is_handed_over``: whether the
        own state was just handed over."""
        self._electorate, self._first_certified, self._is_opened = electorate, first_certified, is_opened
        self._height = height
        self._gets_blocks, self._block_at, self._block_height = is_handed_over, -1, height
        """Whether it goes on from a state that was handed over; and when the last block came, as far as it has noticed."""
        self._peers: dict[bytes, _Peer] = {}
        self._greatest = 0
        """No peer has spoken of more."""
        self._requests: dict[bytes, _Request] = {}
        self._offers: list[CertifiedCheckpoint] = []
        self._offered_at = self._moved_at = 0
        self.chosen: CertifiedCheckpoint | None = None
        self._open: list[bytes] = []
        """Places to ask for; the last first, so that they stay few."""
        self._expected: dict[bytes, bytes | Replayed] = {}
        """Of each place that is open or asked for, what must be there: the subtree's hash, or the row that commits to the ids."""
        self._covered = self._told = 0
        self.rows = 0
        self.deadline = _FAR_AWAY

    @property
    def is_whole(self) -> bool:
        return self.chosen is not None and not self._expected

    @property
    def progress(self) -> int:
        """Thousandths of the tree that are here."""
        return self._covered * 1000 // _WHOLE

    def news(self) -> list[Notable]:
        """What is worth a line, once: that it begins, each tenth that is here, that all is."""
        if self.chosen is None or self.progress < self._told:
            return []
        height, told = self.chosen.header.height, self.progress // 100
        self._told = 100 * (told + 1)
        return [Notable(f"taking over the state of block {height}: {10 * told} %, {self.rows} rows")]

    # -- events ----------------------------------------------------------------------------------------------------

    def heard(self, peer: bytes, height: int) -> None:
        """A peer's status."""
        self._peers.setdefault(peer, _Peer()).height = height
        self._greatest = max(self._greatest, height)

    def lost(self, peer: bytes) -> None:
        """A peer is gone. That it failed is not forgotten."""
        self._take_back(peer)
        if peer in self._peers:
            self._peers[peer].height = 0

    def moved(self, height: int) -> None:
        """The own final height grew: by itself, for all that is known."""
        self._height = height
        self._gets_blocks = self._gets_blocks and any(self._is_far(peer.height) for peer in self._peers.values())
        if self.chosen is not None and self.chosen.header.height <= height:
            self._let_go()

    def offered(self, peer: bytes, checkpoint: CertifiedCheckpoint, now: int) -> None:
        """A peer's newest checkpoint. Raises Forged if it is none."""
        request = self._requests.get(peer)
        if request is None or request.places:
            return
        del self._requests[peer]
        self._peers[peer].failures = 0
        self._peers[peer].not_before = now + _OFFERS_PAUSE
        if not checkpoint.is_valid(self._electorate):
            raise Forged("a checkpoint that does not prove itself")
        if self.chosen is None and self._is_far(checkpoint.header.height):
            self._offered_at = self._offered_at if self._offers else now
            self._offers.append(checkpoint)

    def received(self, peer: bytes, reply: PartsReply, now: int) -> list[StoreParts]:
        """Parts that a peer was asked for; none, if it does not have the checkpoint. Raises Forged if they are others."""
        request = self._requests.get(peer)
        if self.chosen is None or request is None or not request.places or reply.height != self.chosen.header.height:
            return []
        if not _may_be_one_answer(reply.parts):
            raise Forged("a part twice, or too many at once")
        known = self._peers[peer]
        known.failures, known.is_without = 0, not reply.parts
        known.not_before = now + (_TIMEOUT if known.is_without else _PACE)
        self._take_back(peer)
        parts = [part for part in reply.parts if part.place in request.places and part.place in self._expected]
        for part in parts:
            if not _is_right(part, self._expected[part.place]):
                raise Forged("a part that is another")
        self._moved_at = now if parts else self._moved_at
        for part in parts:
            self._accept(part)
        stored = tuple(part for part in parts if not isinstance(part, Branching))
        return [StoreParts(stored)] if stored else []

    # -- what follows ----------------------------------------------------------------------------------------------

    def next_requests(self, now: int) -> list[Send | BeginHandoff]:
        """What to ask for now, and of whom. Counts as asked."""
        self.deadline = _FAR_AWAY
        if self._is_getting_blocks(now):
            return []
        if not self._requests and self.chosen is None and not (self._is_far(self._greatest) and self._far_peers()):
            return []
        self._give_up(now)
        if self.chosen is not None and self._is_hopeless(now):
            self._let_go()
            for peer in self._peers.values():
                peer.not_before = max(peer.not_before, now + _PAUSE) if peer.failures else now + _PAUSE
        began = self._choose(now)
        if self.is_whole:
            return [*began]
        asked = self._ask_for_offers(now) if self.chosen is None else self._ask_for_parts(self.chosen, now)
        self._wake(now)
        return [*began, *asked]

    def waits(self, now: int) -> bool:
        """Whether blocks need not be asked for now: a state is on its way, or may be. For one who has nothing any answer is worth
        as long as one may take, where more are asked than may lie: the first block takes the choice away."""
        is_worth_it = self._has_nothing and len(self._requests) > self._electorate.faults_tolerated
        patience = _TIMEOUT if is_worth_it else _SLOW
        return self.chosen is not None or any(now - request.at < patience for request in self._requests.values())

    def _is_getting_blocks(self, now: int) -> bool:
        """Whether blocks come since a state was handed over. When none does for long, others do not keep them any more."""
        if self._block_at < 0 or self._height > self._block_height:
            self._block_at, self._block_height = now, self._height
        self._gets_blocks = self._gets_blocks and now - self._block_at < _STUCK
        return self._gets_blocks

    @property
    def _has_nothing(self) -> bool:
        return not self._height and not self._is_opened

    def _is_far(self, height: int) -> bool:
        return height - self._height >= (1 if self._has_nothing else FAR_BEHIND)

    def _far_peers(self) -> set[bytes]:
        """Those that may have a checkpoint that is far ahead."""
        return {key for key, peer in self._peers.items() if peer.height >= self._first_certified and self._is_far(peer.height)}

    def _is_hopeless(self, now: int) -> bool:
        without = sum(peer.is_without for peer in self._peers.values())
        return without > self._electorate.faults_tolerated or now - self._moved_at >= _STUCK

    def _let_go(self) -> None:
        """Of the checkpoint chosen."""
        self.chosen, self._offers, self._requests = None, [], {}
        for peer in self._peers.values():
            peer.is_without = False

    def _choose(self, now: int) -> list[BeginHandoff]:
        """The highest checkpoint that was offered, once all have answered or others take too long."""
        self._offers = [offer for offer in self._offers if self._is_far(offer.header.height)]
        if self.chosen is not None or not self._offers or (self._requests and now - self._offered_at < _SLOW):
            return []
        count = Counter(offer.header.height for offer in self._offers)
        enough = self._electorate.faults_tolerated + 1
        self.chosen = max(self._offers, key=lambda offer: (count[offer.header.height] >= enough, offer.header.height))
        self._offers, self._requests, self._moved_at = [], {}, now
        self._open, self._expected, self._covered, self._told, self.rows = [], {}, 0, 0, 0
        for peer in self._peers.values():
            peer.not_before = now + (_PACE if not peer.failures else _TIMEOUT)
        self._want(b"", self.chosen.root)
        return [BeginHandoff()]

    def _ask_for_offers(self, now: int) -> list[Send]:
        far = self._far_peers()
        ready = [key for key, _ in self._ready(now) if key in far]
        for key in ready:
            self._requests[key] = _Request((), now)
        return [Send(key, CheckpointRequest(self._height)) for key in ready]

    def _ask_for_parts(self, chosen: CertifiedCheckpoint, now: int) -> list[Send]:
        """What is open; and when nothing is, what others are slow with."""
        slow = [request.places for request in self._requests.values() if now - request.at >= _SLOW]
        asked: list[Send] = []
        for key, peer in self._ready(now):
            if peer.height < chosen.certifying.height or not (self._open or slow):
                continue
            places = tuple(self._open[-_PLACES:]) or slow.pop()
            del self._open[-_PLACES:]
            self._requests[key] = _Request(places, now)
            asked.append(Send(key, PartsRequest(chosen.header.height, places)))
        return asked

    def _ready(self, now: int) -> Sequence[tuple[bytes, _Peer]]:
        """Who may be asked now, those that answer first."""
        free = [(key, peer) for key, peer in self._peers.items() if key not in self._requests and peer.not_before <= now]
        return sorted(free, key=lambda one: (one[1].failures, one[0]))

    def _give_up(self, now: int) -> None:
        """On requests that were not answered in time."""
        for key in [key for key, request in self._requests.items() if now - request.at >= _TIMEOUT]:
            self._take_back(key)
            peer = self._peers[key]
            peer.failures += 1
            peer.not_before = now + (1_000 << min(peer.failures - 1, _MAX_PENALTY))

    def _take_back(self, peer: bytes) -> None:
        request = self._requests.pop(peer, None)
        others = {place for other in self._requests.values() for place in other.places}
        missing = self._expected.keys() - others - set(self._open)
        self._open += [place for place in request.places if place in missing] if request is not None else []

    def _wake(self, now: int) -> None:
        waits = [request.at + after for request in self._requests.values() for after in (_SLOW, _TIMEOUT)]
        waits = [wait for wait in waits if wait > now]
        idle = (peer for key, peer in self._peers.items() if key not in self._requests and peer.height)
        waits += [peer.not_before for peer in idle if peer.not_before > now]
        waits += [self._offered_at + _SLOW] if self._offers else []
        waits += [self._moved_at + _STUCK] if self.chosen is not None else []
        self.deadline = max(now + 1, min(waits, default=_FAR_AWAY))

    # -- parts -----------------------------------------------------------------------------------------------------

    def _want(self, place: bytes, expected: bytes | Replayed) -> None:
        if expected == ZERO_HASH:
            self._cover(place)
            return
        self._expected[place] = expected
        self._open.append(place)

    def _cover(self, place: bytes) -> None:
        self._covered += _WHOLE >> 4 * len(place)

    def _accept(self, part: Part) -> None:
        del self._expected[part.place]
        if part.place in self._open:
            self._open.remove(part.place)
        match part:
            case Branching(place, children):
                for digit in range(16):
                    self._want(place + bytes([digit]), children[HASH_BYTES * digit : HASH_BYTES * (digit + 1)])
            case Rows(place, rows):
                self._cover(place)
                self.rows += len(rows)
                for key, value in rows:
                    if key.endswith(REPLAYED):
                        self._want(key, decode(Replayed, value, len(value)))


def _may_be_one_answer(parts: Sequence[Part]) -> bool:
    """Whether each part is there once, and none after those that fill an answer: each is checked at once."""
    return len({part.place for part in parts}) == len(parts) and sum(map(work_of, parts[:-1])) < MAX_PART_ROWS


def _is_right(part: Part, expected: bytes | Replayed) -> bool:
    match part:
        case Branching(_, children):
            return branch_root(children) == expected
        case Rows(place, rows):
            return subtree_root(rows, len(place)) == expected
        case Ids(_, ids):
            return isinstance(expected, Replayed) and commits_to(expected, ids)
