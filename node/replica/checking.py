"""Checking signatures: what waits for it. The checks themselves are done elsewhere, off the loop."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property

from msgspec import Struct, structs

from node.consensus.simplex import MAX_PROPOSALS
from node.effects import CheckSignatures
from node.ledger.rules import Rules
from node.protocol.block import Block
from node.protocol.messages import BodyReply, ChainReply
from node.protocol.topics import Refusal
from node.protocol.transaction import Transaction
from node.replica.assembling import Assembled
from node.replica.drafts import Draft, Payload
from node.replica.inbox import Delivery, Inbox
from node.replica.mempool import Mempool, Pooled
from node.replica.witnesses import Verdicts, join, read_bundles, record, to_check

MAX_PROPOSAL_BYTES = 32 << 20
"""Encoded content of all proposals and replies under check. More than the two largest of three leaders, and each
leader has two at most; who comes when it is reached is not voted for, a reply is asked for again."""

Waiting = Assembled | Delivery | ChainReply | BodyReply
"""What waits for signatures."""


class _Check(Struct, frozen=True, dict=True):
    """Transactions under check; those that bundles prepare, cut down to the witnesses to check; and what waits for both."""

    transactions: tuple[Pooled, ...]
    prepared: tuple[Transaction, ...] = ()
    waiting: Waiting | None = None
    peer: bytes = b""
    payload: Payload | None = None

    @cached_property
    def size(self) -> int:
        match self.waiting:
            case Assembled(block=block) | BodyReply(block):
                return _size_of(block)
            case Delivery(_, encoded):
                return len(encoded)
            case ChainReply(blocks):
                return sum(_size_of(final.block) for final in blocks)
        return 0


def _is_body(waiting: Waiting | None, block: Block) -> bool:
    return isinstance(waiting, BodyReply) and waiting.block.header == block.header


def _size_of(block: Block) -> int:
    return sum(map(len, (*block.bundles, *block.transactions, *block.entries)))


class Checked(Struct, frozen=True):
    """``refusals``: of transactions from clients. ``waiting``: what waited, of ``peer``; ``verdicts``: of what its bundles
    prepare; ``draft``: of a proposal, None when a transaction of its own has one."""

    refusals: list[Refusal]
    waiting: Waiting | None = None
    peer: bytes = b""
    verdicts: Verdicts = {}
    draft: Draft | None = None
    transactions: tuple[Pooled, ...] = ()
    """Own transactions that were checked."""


class Checking:
    """Checks under way, by token. Bundles are checked one after the other, so that few transactions are in memory.

    ``first``: above all tokens of a replica that this one takes the place of: late answers are to those.
    """

    def __init__(self, rules: Rules, mempool: Mempool, inbox: Inbox, first: int) -> None:
        self._rules, self._mempool, self._inbox = rules, mempool, inbox
        self._checks: dict[int, _Check] = {}
        self._token = first
        self._deliveries: deque[Delivery] = deque()

    def transactions(self, transactions: Sequence[Pooled]) -> list[CheckSignatures]:
        """Have transactions from clients checked."""
        return self._check(_Check(tuple(transactions))) if transactions else []

    def proposal(self, assembled: Assembled, payload: Payload) -> list[CheckSignatures] | None:
        """Have checked what nobody has checked here before: transactions of a proposal, and what its bundles prepare. None when
        there is nothing to check."""
        unknown = tuple(pooled for pooled in payload.transactions if self._mempool.find(pooled.leaf) is None)
        pairs = zip(payload.bundles, assembled.block.bundles, strict=True)
        new = (certified.bundle for certified, encoded in pairs if self._inbox.verdicts(encoded) is None)
        prepared = to_check(self._rules, new)
        if not unknown and not prepared:
            return None
        signer = assembled.proposal.vote.signer
        others = [check.waiting for check in self._checks.values()]
        if sum(isinstance(other, Assembled) and other.proposal.vote.signer == signer for other in others) >= MAX_PROPOSALS:
            return []
        return self._make_wait(_Check(unknown, prepared, assembled, payload=payload))

    def reply(self, peer: bytes, reply: ChainReply | BodyReply, blocks: Iterable[Block]) -> list[CheckSignatures] | None:
        """Have checked what the bundles in blocks from another member prepare, once at a time. None when there is nothing to
        check."""
        if isinstance(reply, BodyReply) and any(_is_body(check.waiting, reply.block) for check in self._checks.values()):
            return []
        prepared = to_check(self._rules, (bundle for block in blocks for bundle in read_bundles(block)))
        return self._make_wait(_Check((), prepared, reply, peer)) if prepared else None

    def delivery(self, delivery: Delivery) -> list[CheckSignatures]:
        """Have checked what a bundle that came in prepares. Until then its turn does not come."""
        self._deliveries.append(delivery)
        return self._next_delivery()

    def _next_delivery(self) -> list[CheckSignatures]:
        while self._deliveries and not any(isinstance(check.waiting, Delivery) for check in self._checks.values()):
            delivery = self._deliveries.popleft()
            if prepared := to_check(self._rules, [delivery.certified.bundle]):
                return self._check(_Check((), prepared, delivery))
            self._inbox.settle(delivery, {})
        return []

    def _make_wait(self, check: _Check) -> list[CheckSignatures]:
        others = sum(other.size for other in self._checks.values() if not isinstance(other.waiting, Delivery))
        return self._check(check) if check.size + others <= MAX_PROPOSAL_BYTES else []

    def _check(self, check: _Check) -> list[CheckSignatures]:
        self._token += 1
        self._checks[self._token] = check
        self._mempool.expect(check.transactions)
        transactions = (*(pooled.transaction for pooled in check.transactions), *check.prepared)
        return [CheckSignatures(self._token, transactions, check.waiting is not None)]

    def settle(self, token: int, verdicts: Sequence[bool]) -> tuple[Checked, list[CheckSignatures]] | None:
        """The answer to ``CheckSignatures``: valid transactions enter the mempool; and what to check next. None for an unknown
        token."""
        check = self._checks.pop(token, None)
        if check is None:
            return None
        own, others = verdicts[: len(check.transactions)], verdicts[len(check.transactions) :]
        refusals = self._mempool.settle(check.transactions, own, may_push_out=check.waiting is None)
        if check.waiting is None:
            return Checked(refusals, transactions=check.transactions), []
        found = record(check.prepared, others)
        draft = None
        if isinstance(check.waiting, Delivery):
            self._inbox.settle(check.waiting, found)
        elif check.payload is not None and all(own):
            draft = Draft(structs.replace(check.payload, verdicts=join((check.payload.verdicts, found))))
        return Checked([], check.waiting, check.peer, found, draft, check.transactions), self._next_delivery()
