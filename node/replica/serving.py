"""Serving: answers to other nodes' requests, each kind once in a while only. Requests must not amplify."""

from collections.abc import Sequence
from operator import ge

from node.consensus.simplex import Simplex
from node.effects import Send, SendBlocks, SendBundles
from node.ledger.state import State
from node.protocol.block import Block
from node.protocol.certificate import Electorate
from node.protocol.messages import (
    Ballot,
    BodyReply,
    BodyRequest,
    BundleDelivery,
    BundleRequest,
    BundleWanted,
    ChainRequest,
    CheckpointRequest,
    PartsRequest,
    PeerMessage,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.replica.drafts import Draft
from node.replica.handing_over import Answer, HandingOver
from node.replica.inbox import WINDOW, Inbox

_INTERVAL = 100
"""Milliseconds between two answers of a kind to one peer."""


Request = ChainRequest | BodyRequest | TransactionsRequest | CheckpointRequest | PartsRequest


class Serving:
    """Answers from the chain, the tree and the channels. ``electorates``: of all shards."""

    def __init__(
        self, shard: int, electorates: dict[int, Electorate], state: State, consensus: Simplex[Draft], inbox: Inbox
    ) -> None:
        self._shard, self._electorates, self._state, self._consensus, self._inbox = shard, electorates, state, consensus, inbox
        self.handing_over = HandingOver(state)
        self._served: dict[tuple[bytes, type[PeerMessage]], int] = {}
        self._completed: dict[bytes, int] = {}
        """The latest view of which each peer was sent transactions."""
        self._given: dict[tuple[bytes, int, int], set[int]] = {}
        """Bundles that were named and each peer was given, by channel, the last ``WINDOW`` of them."""

    @property
    def standing(self) -> Standing:
        """How far this member is."""
        return Standing(self._state.height, self._consensus.view)

    def answer(self, peer: bytes, request: Request, now: int) -> Sequence[SendBlocks | Answer]:
        """To a member of the own shard, or a guest."""
        match request:
            case CheckpointRequest() | PartsRequest():
                return self.handing_over.answer(peer, request, now) if self._may(peer, type(request), now) else []
            case ChainRequest(first) if first <= self._state.height and self._may(peer, ChainRequest, now):
                return [SendBlocks(peer, first)]
            case BodyRequest() if (reply := self._body(request)) is not None and self._may(peer, BodyRequest, now):
                return [Send(peer, reply)]
            case TransactionsRequest(hash, places) if (block := self._consensus.body(hash)) is not None:
                return self._transactions(peer, block, hash, places, now)
        return []

    def _body(self, request: BodyRequest) -> BodyReply | Standing | None:
        """The block; or how far this one is, once it is not in the tree any more because later ones are final."""
        if (block := self._consensus.body(request.hash)) is not None:
            return BodyReply(block)
        return self.standing if request.view <= self._consensus.views.final else None

    def _transactions(
        self, peer: bytes, block: Block, block_hash: bytes, places: Sequence[int], now: int
    ) -> list[Send | SendBlocks]:
        """Those at ascending places. For the block of a new view at once: a leader's blocks may follow on each other fast."""
        if not places or places[-1] >= len(block.transactions) or any(map(ge, places, places[1:])):
            return []
        is_new = block.header.view > self._completed.get(peer, 0)
        if not self._may(peer, TransactionsRequest, now) and not is_new:
            return []
        self._completed[peer] = max(block.header.view, self._completed.get(peer, 0))
        return [Send(peer, TransactionsReply(block_hash, tuple(block.transactions[place] for place in places)))]

    def bundles(self, peer: bytes, request: BundleRequest, now: int) -> list[SendBundles]:
        """To members of the shard that they are for."""
        electorate = self._electorates.get(request.destination)
        if electorate is None or peer not in electorate.keys or request.destination == self._shard:
            return []
        if request.sequence > self._state.sequence(request.destination) or not self._may(peer, BundleRequest, now):
            return []
        return [SendBundles(peer, request.destination, request.sequence)]

    def named(self, peer: bytes, wanted: BundleWanted, now: int) -> list[Send | SendBundles]:
        """One bundle: that this shard sends, to a member of its destination; or that was brought here, to a member. Each at once
        the first time: several are under way when a sender is silent."""
        electorate = self._electorates.get(wanted.destination)
        if electorate is None or peer not in electorate.keys or wanted.source == wanted.destination:
            return []
        found: Send | SendBundles
        if wanted.destination == self._shard and (certified := self._inbox.get(wanted.source, wanted.sequence)) is not None:
            found = Send(peer, BundleDelivery(certified))
        elif wanted.source == self._shard and wanted.sequence <= self._state.sequence(wanted.destination):
            found = SendBundles(peer, wanted.destination, wanted.sequence, is_alone=True)
        else:
            return []
        return [found] if self._is_first(peer, wanted) or self._may(peer, BundleWanted, now) else []

    def _is_first(self, peer: bytes, wanted: BundleWanted) -> bool:
        """Of the last of the channel, which it was not given yet. Of what was brought here few are kept."""
        given, sequence = self._given.setdefault((peer, wanted.source, wanted.destination), set()), wanted.sequence
        latest = self._state.sequence(wanted.destination) if wanted.source == self._shard else max(given, default=0)
        oldest = latest - WINDOW
        if sequence <= oldest or sequence in given:
            return False
        given.add(sequence)
        given -= {number for number in given if number <= sequence - WINDOW}
        return True

    def tell(self, peer: bytes, now: int) -> list[Send]:
        """Answer a guest's standing with the own one."""
        return [Send(peer, self.standing)] if self._may(peer, Standing, now) else []

    def help(self, peer: bytes, member: int, standing: Standing, now: int) -> list[Send]:
        """What a member in an earlier view needs to join this one's; its own last vote, lest it has forgotten it; and the own
        standing, if it is blocks behind."""
        if not self._may(peer, Standing, now):
            return []
        certified, vote = self._consensus.catch_up_help(standing.view), self._consensus.last_vote_of(member)
        ahead = self.standing if standing.height < self._state.height - 1 else None  # one block less is as usual
        messages = [certified, Ballot(vote) if vote is not None else None, ahead]
        return [Send(peer, message) for message in messages if message is not None]

    def _may(self, peer: bytes, kind: type[PeerMessage], now: int) -> bool:
        last = self._served.get((peer, kind))
        if last is not None and now - last < _INTERVAL:
            return False
        self._served[(peer, kind)] = now
        return True
