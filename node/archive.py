"""Chains that are over, which this node kept: it answers clients' questions for their blocks straight from storage, as the member
it was then. No ledger of theirs is in memory, and nothing else is done for them.

With ``keep_blocks`` a chain goes once two later epochs have begun, the last of them after the validity window: who sent a payment
in it has had time to look. Without, all are kept.
"""

from collections.abc import Sequence

from node.chronicle import Chronicle
from node.consensus.round import Seat
from node.effects import Abandon, In, NodeEffect, ReplyBlocks, Retire, Unsubscribe
from node.protocol.chain import Chain
from node.protocol.crypto import KeyPair
from node.protocol.queries import GetBlocks, Query
from node.protocol.succession import Succession


class Archive:
    """Methods return what to do, in order. ``keep_blocks``: 0: nothing is let go; ``window``: the validity window, ms.

    Attributes:
        seats: the own one in each chain of which there are blocks here.
    """

    def __init__(self, key: KeyPair, keep_blocks: int, window: int, chronicle: Chronicle) -> None:
        self._key, self._keep_blocks, self._window = key, keep_blocks, window
        self._chronicle = chronicle
        self.seats: dict[Chain, Seat] = {}

    def tend(self, over: Sequence[Chain]) -> list[NodeEffect]:
        """Take in what is stored of these chains, as far as it is of use to clients; let go of what is so no more."""
        gone = [chain for chain in self.seats if self._may_go(chain)]
        for chain in gone:
            del self.seats[chain]
        taken = {chain: seat for chain in over if (seat := self._seat(chain)) is not None and not self._may_go(chain)}
        self.seats |= taken
        abandoned: list[NodeEffect] = [Abandon(chain) for chain in (*gone, *(chain for chain in over if chain not in taken))]
        return [*map(Unsubscribe, gone), *abandoned, *map(Retire, taken)]

    def on_query(self, chain: Chain, query: Query) -> list[NodeEffect]:
        """A client's question."""
        seat = self.seats.get(chain)
        if seat is None or query.member != seat.member or not isinstance(query.request, GetBlocks):
            return []
        return [In(chain, ReplyBlocks(query))]

    def _seat(self, chain: Chain) -> Seat | None:
        electorate = self._chronicle.documents[chain.epoch - 1].electorates.get(chain.shard)
        if electorate is None or self._key.public not in electorate.keys:
            return None
        return Seat(self._key, electorate.keys.index(self._key.public), electorate)

    def _may_go(self, chain: Chain) -> bool:
        """Whether nobody can count on its blocks any more. Two later epochs have begun: else it would not be over."""
        successions = self._chronicle.successions
        return bool(self._keep_blocks) and _time(successions[chain.epoch - 1]) + self._window < _time(successions[-1])


def _time(succession: Succession) -> int:
    """When the one epoch was over, and the other began, ms of block time."""
    return max(closing.header.time for closing in succession.closings)
