"""Observing: following a chain without a seat in it, to have its state. It votes nowhere and serves nobody.

It takes over the state of a checkpoint, if it has none or is far behind; then it asks members for final blocks, checks that they
are final, and executes and stores them, up to the closing block. Members tell it how high they are when it tells them.
"""

from node.consensus.adopting import Adopting
from node.consensus.adopting import Forged as ForgedBlock
from node.consensus.catching_up import CatchingUp
from node.effects import Ban, ChainEffect, Checkpoint, Commit, FinishHandoff, Send
from node.events import Instant, Recovered
from node.ledger.execution import InvalidBlock, genesis_header
from node.ledger.following import execute_final
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import Header
from node.protocol.certificate import CertifiedBlock, CertifiedHeader, Electorate, FinalBlock
from node.protocol.change import Stage
from node.protocol.codec import DecodeError, encode
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import ChainReply, ChainRequest, CheckpointReply, PartsReply, PeerMessage, Standing
from node.protocol.reports import Notable
from node.replica.taking_over import Forged, TakingOver

LAG = 8
"""So many blocks behind is current: they come with one answer."""
_AT_ONCE = 64 << 10
"""Of payload executed in one event, bytes: a member that observes another chain must not be late in its own."""
_FAR_AWAY = 1 << 62


class Observer:
    """``recovered``: what storage held; None: nothing, so that it begins with a checkpoint. ``interval``: ms between two times
    members are asked how high they are.

    Attributes:
        last: the last final block; None: there is none after height 0, or no state. closing: the same, if it closes the chain.
        is_handed_over: as ``Replica``'s.
    """

    def __init__(self, rules: Rules, electorate: Electorate, recovered: Recovered | None, interval: int, at: Instant) -> None:
        self.rules, self.electorate, self._interval = rules, electorate, interval
        self.state = recovered.state if recovered is not None else None
        self.last = recovered.last if recovered is not None else None
        self.closing: CertifiedHeader | None = None
        self._root = self._root_of(recovered) if recovered is not None else None
        self._root_hash = self._root.hash if self._root is not None else ZERO_HASH
        self.catching_up = CatchingUp(self.height, at.now, patience=0)
        is_opened, is_handed_over = recovered is not None and rules.is_later, recovered is not None and recovered.is_handed_over
        self.taking_over = TakingOver(electorate, self.height, rules.first_certified, is_opened, is_handed_over)
        self._adopting = Adopting(electorate)
        self._heights: dict[bytes, int | None] = {}
        """Of members that are connected, as they last told; None: they have not."""
        self._next_standing = at.now
        self._is_stuck = False
        """Its committee made final what is not valid."""
        self._has_more = False
        """Blocks are here that are not executed yet."""
        self._at = at
        self._note_closing()
        self._effects: list[ChainEffect] = [Checkpoint(*part) for part in recovered.slices] if recovered is not None else []

    def _root_of(self, recovered: Recovered) -> Header:
        opening = recovered.opening or genesis_header(self.rules.genesis, self.rules.shard, recovered.state)
        return recovered.last.header if recovered.last is not None else opening

    # -- how far it is ---------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        return self.state.height if self.state is not None else 0

    @property
    def is_closed(self) -> bool:
        """Whether it has the closing block."""
        return self.closing is not None

    @property
    def is_current(self) -> bool:
        """Whether it is at most a few blocks behind: a quorum tells how high it is, and one of those above is honest."""
        if self.state is None or self._is_stuck:
            return False
        told = sorted((height for height in self._heights.values() if height is not None), reverse=True)
        enough = len(told) >= self.electorate.quorum
        return self.is_closed or (enough and self.height >= told[self.electorate.faults_tolerated] - LAG)

    @property
    def is_handed_over(self) -> bool:
        """Whether the state of a checkpoint is stored: it is to be brought back, and this observer told nothing more."""
        return self.taking_over.is_whole

    @property
    def deadline(self) -> int:
        """When the next ``on_tick`` is due (ms, monotonic)."""
        if self.is_closed or self._is_stuck:
            return _FAR_AWAY
        if self._has_more:
            return self._at.now
        fetching = self.taking_over.deadline
        if self.state is not None and not self.taking_over.waits(self._at.now):
            fetching = min(fetching, self.catching_up.deadline)
        return min(self._next_standing, fetching)

    # -- events ----------------------------------------------------------------------------------------------------

    def start(self, at: Instant) -> list[ChainEffect]:
        """First event after construction."""
        return self._finish(at)

    def on_peer_up(self, peer: bytes, at: Instant) -> list[ChainEffect]:
        """A node is connected."""
        if peer in self.electorate.keys:
            self._heights[peer] = None
            self._effects.append(Send(peer, Standing(self.height, 0)))
        return self._finish(at)

    def on_peer_down(self, peer: bytes, at: Instant) -> list[ChainEffect]:
        self._heights.pop(peer, None)
        self.catching_up.lost(peer)
        self.taking_over.lost(peer)
        return self._finish(at)

    def on_closed(self, height: int, at: Instant) -> list[ChainEffect]:
        """The closing block is known to be at this height: members have it, or will at once."""
        self._at = at
        for peer in self._heights:
            self._on_member_message(peer, Standing(height, 0))
        return self._finish(at)

    def on_tick(self, at: Instant) -> list[ChainEffect]:
        """Time passed; to be called at ``deadline`` at the latest."""
        self._at = at
        if self._has_more:
            try:
                self._adopt()
            except ForgedBlock as error:
                self._effects.append(Ban(self._adopting.sender, f"it sent {error}"))
        return self._finish(at)

    def on_message(self, peer: bytes, message: PeerMessage, at: Instant) -> list[ChainEffect]:
        """A decoded message from a node of the network, authenticated by its public key."""
        self._at = at
        if peer in self._heights and not self.is_closed and not self._is_stuck:
            try:
                self._on_member_message(peer, message)
            except (Forged, ForgedBlock) as error:
                self._effects.append(Ban(peer, f"it sent {error}"))
        return self._finish(at)

    def _on_member_message(self, peer: bytes, message: PeerMessage) -> None:
        """Raises Forged, of either kind."""
        match message:
            case Standing(height):
                self._heights[peer] = height
                self.catching_up.heard(peer, height)
                self.taking_over.heard(peer, height)
            case CheckpointReply(checkpoint):
                self.taking_over.offered(peer, checkpoint, self._at.now)
            case PartsReply():
                self._effects += self.taking_over.received(peer, message, self._at.now)
            case ChainReply(blocks) if blocks and self.catching_up.answered(peer, blocks[0].block.header.height, self._at.now):
                self._adopting.offer(peer, blocks)
                self._adopt()

    # -- what follows ----------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Raises ForgedBlock."""
        size, self._has_more = 0, False
        while not self.is_closed and self.state is not None and self._root is not None:
            final = self._adopting.following(self._root, self._root_hash)
            if final is None:
                return
            if size >= _AT_ONCE:
                self._has_more = True
                return
            size += sum(map(len, (*final.block.bundles, *final.block.transactions)))
            try:
                self._commit(final, self.state)
            except (DecodeError, InvalidBlock) as error:
                self._is_stuck = True
                shard = self.electorate.shard
                self._effects.append(Notable(f"shard {shard} is not followed any more: its committee made this final: {error}"))
                return

    def _commit(self, final: FinalBlock, state: State) -> None:
        """Execute a final block, and store it. Raises DecodeError or InvalidBlock, and has changed nothing then."""
        header, execution = final.block.header, execute_final(final.block, state, self.rules)
        included, rows = execution.overlay.included, state.commit(execution.overlay)
        certified = CertifiedBlock(final.block, final.finality, execution.effects)
        self._effects.append(Commit(header.height, header.view, certified, encode(certified), (), included=included))
        self._effects.append(Checkpoint(*rows))
        self.last, self._root, self._root_hash = CertifiedHeader(header, final.finality), header, header.hash
        self._note_closing()
        self.catching_up.moved(header.height, self._at.now)
        self.taking_over.moved(header.height)

    def _note_closing(self) -> None:
        if self.state is not None and self.state.change.stage is Stage.CLOSED:
            self.closing = self.last

    def _finish(self, at: Instant) -> list[ChainEffect]:
        """What may follow from any event: telling the own height, requests; then hand it all over."""
        self._at = at
        if not self.is_closed and not self._is_stuck:
            if at.now >= self._next_standing:
                self._next_standing = at.now + self._interval
                self._effects += [Send(peer, Standing(self.height, 0)) for peer in self._heights]
            self._fetch(at.now)
        effects, self._effects = self._effects, []
        return effects

    def _fetch(self, now: int) -> None:
        """Ask for what members have: blocks, or the state."""
        self._effects += self.taking_over.next_requests(now)
        self._effects += self.taking_over.news()
        if self.state is not None and not self._has_more and not self.taking_over.waits(now):
            request = self.catching_up.next_request(now)
            if request is not None:
                self._effects.append(Send(request[0], ChainRequest(request[1])))
        if self.taking_over.chosen is not None and self.is_handed_over:
            self._effects.append(FinishHandoff(self.taking_over.chosen))
