"""A client that asks members: how they stand, what an account has, which transactions wait, for blocks. Each answers, signed, and
says what is so."""

from random import Random
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from node.events import Asked, For
from node.protocol.address import address_of
from node.protocol.chain import Chain
from node.protocol.queries import EVERYONE, GetAccount, GetBlocks, GetPending, GetStatus, Query, Request
from node.protocol.topics import replies_topic
from tests.simulation.oracle import verify
from tests.simulation.violation import violated
from tests.vectors.reference import digest

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

_CLIENT = "inquirer"
_PAUSE, _PATIENCE = 400, 1_000
_VIEW, _HEIGHT, _STATE = 2, 3, 14
_STATUS, _BLOCKS, _ACCOUNT, _PENDING = 1, 2, 3, 4


class Inquirer:
    """``topic``: where replies come."""

    def __init__(self, world: "World") -> None:
        self.world, self._chance = world, Random(f"{world.plan.seed}/questions")
        self.topic = replies_topic(world.genesis.network, _CLIENT)
        self._open: dict[tuple[bytes, int], Query] = {}
        """What was asked, by id of the question and node."""

    def start(self) -> None:
        """Ask each shard something, again and again."""
        for shard in self.world.honest:
            size = self.world.plan.size
            member = self._chance.choice((EVERYONE, self._chance.randrange(size)))
            query = Query(self._chance.randbytes(16), _CLIENT, member, self._request(shard))
            for node in self.world.committee(shard):
                if member == node.index % size or (member == EVERYONE and query.is_small):
                    self._expect(node, query)
                node.put(For(Chain(1, node.index // self.world.plan.size), Asked(query)))
        self.world.after(_PAUSE, self.start)

    def _request(self, shard: int) -> Request:
        key = self._chance.choice([key for gateway in self.world.gateways for key in gateway.accounts[shard]])
        height = self._chance.randint(1, 1 + len(self.world.monitor.chains[shard]))
        requests = GetStatus(), GetAccount(address_of(key.public)), GetPending(2), GetBlocks(height, self._chance.randint(1, 3))
        return self._chance.choice(requests)

    def _expect(self, node: "Host", query: Query) -> None:
        self._open[query.id, node.index] = query
        life, is_calm = node.life, self.world.time > self.world.plan.active

        def judge() -> None:
            is_there = node.is_honest and node.life == life and node.replica is not None
            if is_calm and is_there and (query.id, node.index) in self._open:
                violated("answer", f"{node} does not answer {type(query.request).__name__}")

        if node.replica is not None:
            self.world.after(_PATIENCE, judge)

    # -- what they answer ------------------------------------------------------------------------------------------

    def on_reply(self, node: "Host", body: bytes) -> None:
        """A reply as it left its member."""
        if not node.is_honest:
            return
        query_id, epoch, shard, member, answer, signature = msgpack.unpackb(body)
        query = self._open.pop((query_id, node.index), None)
        if query is None:
            violated("answer", f"{node} answers what it was not asked")
        assert query is not None
        statement = digest("reply", [self.world.document.hash, query_id, epoch, shard, member, answer])
        if (shard * self.world.plan.size + member) != node.index or not verify(node.key.public, statement, signature):
            violated("answer", f"{node} does not sign its answer")
        if not self._is_so(node, shard, query.request, answer):
            violated("answer", f"{node} answers {type(query.request).__name__} with what is not so: {str(answer)[:200]}")

    def _is_so(self, node: "Host", shard: int, request: Request, answer: list[Any]) -> bool:
        """As far as the oracle knows the height that it speaks of."""
        chain, (kind, *rest) = self.world.monitor.oracle.chains[1, shard], answer
        match request:
            case GetStatus():
                name, height, view, state_root, leader, mempool, pending = rest
                known = [] if not 0 < height <= chain.height else chain.blocks[height - 1][0][0]
                is_known = not known or (known[_STATE] == state_root and known[_VIEW] <= view)
                is_last = height != chain.height or pending == chain.undecided
                about = kind == _STATUS and name == node.label and leader == view % self.world.plan.size
                return bool(about and is_known and is_last and mempool >= 0)
            case GetAccount(address):
                height, balances = rest
                rows = {key[20:].decode(): row for key, row in chain.ledger.rows.items() if key[:20] == address}
                return kind == _ACCOUNT and (height != chain.height or dict(balances) == rows)
            case GetPending(limit):
                total, listed = rest
                ids = [digest("transaction", msgpack.unpackb(encoded)[0]) for _, encoded in listed]
                return kind == _PENDING and len(listed) == min(limit, total) and ids == [one for one, _ in listed]
            case GetBlocks(first, count):
                asked = chain.blocks[first - 1 : first - 1 + count]
                listed, oldest = rest
                found = [[block, effects] for block, _, effects in listed]
                are_there = oldest == node.disk.oldest <= first <= node.disk.height
                return kind == _BLOCKS and found == asked[: len(found)] and bool(found) == are_there
