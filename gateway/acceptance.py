"""Accepting orders durably: what is asked for at the same time is accepted together, in one database transaction.

The database alone knows what an account can spend: what blocks have proven, less what is owed. It is looked up and taken off in
that transaction, so that no two processes can promise the same coin.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from gateway.database import Database
from gateway.events.outbox import Outbox
from gateway.idempotency import Idempotency, matching
from gateway.owners import Owners
from gateway.problems import Problem
from gateway.projection import Account, Status, Tracked, lines_of
from gateway.rows import known_rows, owed_rows, posting_row, transfer_row
from gateway.statements import ADD_POSTING, ADD_TRANSFER, CLAIM, CLAIMS, FUNDS, OWE, OWED, WAITING_OF
from node.protocol.codes import Code
from node.protocol.limits import MAX_AMOUNT
from node.protocol.terms import Terms

_MOST_AT_ONCE = 256
MAX_HANDED_IN = 1000
"""Transactions signed elsewhere that a user has under way at most: nobody looks whether they can be paid."""

Before = Callable[[Connection, bytes], None]
"""What is done in the same transaction before it is looked whether the payers can pay: given the transaction's id."""
Also = Callable[[Connection, bytes, Code], None]
"""What is written together with a transfer when it is accepted, once: given its id, and why it is rejected at once, if it is."""


class Accepted(NamedTuple):
    """A transaction that is durable here; ``tracked`` unless it was so before."""

    id: bytes
    tracked: Tracked | None = None


class Short(Exception):
    """The payers have too little, and nothing has happened: they may try otherwise."""


@dataclass(slots=True)
class Offer:
    """An order to be accepted for ``user_id``.

    ``signed``: the transaction. ``unsigned``: the same without signatures, for what cannot be paid; None: it was signed
    elsewhere, and nobody looks whether it can be paid. ``last``: what cannot be paid is recorded as rejected; else it is
    refused with ``Short``.
    """

    tracked: Tracked
    user_id: str
    signed: bytes
    unsigned: Callable[[], bytes] | None = None
    key: Idempotency | None = None
    last: bool = True
    before: Before | None = None
    also: Also | None = None


Result = Accepted | Problem | Short
Asked = tuple[Offer, "asyncio.Future[Accepted]"]


class Acceptance:
    def __init__(self, database: Database, outbox: Outbox, owners: Owners, terms: Terms) -> None:
        self._database, self._outbox, self._owners, self._terms = database, outbox, owners, terms
        self._waiting: deque[Asked] = deque()
        self._working: asyncio.Task[None] | None = None

    async def accept(self, offer: Offer) -> Accepted:
        """Accept an order; one that cannot be paid is recorded as rejected. A key used before yields what was made under it.

        Raises:
            Problem: 409, the key was used for another request.
            Short: it cannot be paid, and is not ``last``.
        """
        if offer.also is not None or offer.before is not None:  # which may fail: then nobody else's payment fails with them
            result = await self._database.write(partial(self._accept_alone, offer=offer))
            if isinstance(result, Short):
                raise result
            return result
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append((offer, done))
        if self._working is None:
            self._working = asyncio.create_task(self._work(), context=Context())
        return await done

    async def _work(self) -> None:
        """Accept what waits, and what comes meanwhile."""
        while self._waiting:
            batch = list[Asked]()
            for (_, done), result in zip(batch, await self._try(batch), strict=True):
                if done.cancelled():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)
        self._working = None

    async def _try(self, batch: list[Asked]) -> Sequence[Accepted | Exception]:
        """Accept a batch; if it is empty, what waits once the database's turn has come: whoever waits for that joins."""

        def accept(connection: Connection) -> list[Result]:
            if not batch:
                self._take(batch)
            return self._accept(connection, [offer for offer, _ in batch])

        try:
            return await self._database.write(accept)
        except Exception as error:
            if not batch:  # its turn did not come
                self._take(batch)
                return [error] * len(batch)
            if len(batch) == 1:
                return [error]
        return [(await self._try([one]))[0] for one in batch]  # each on its own, so that only the culprit fails

    def _take(self, batch: list[Asked]) -> None:
        """Move what waits; in whichever thread: nobody else takes, and who adds does so at the other end."""
        batch.extend(self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE)))

    def _accept_alone(self, connection: Connection, offer: Offer) -> Accepted | Short:
        (result,) = self._accept(connection, [offer])
        if isinstance(result, Problem):
            raise result  # here, so that what was done ``before`` is undone
        return result

    def _accept(self, connection: Connection, offers: list[Offer]) -> list[Result]:
        decision = Decision(self._terms)
        keys = {(offer.user_id, offer.key.key) for offer in offers if offer.key is not None}
        decision.known = known_rows(connection, [offer.tracked.id for offer in offers])
        for user, key, fingerprint, made in CLAIMS.run(connection, list(keys)):
            decision.claimed[user, key] = bytes(fingerprint), bytes(made)
        fresh = [offer for offer in offers if decision.earlier(offer) is None]
        for offer in fresh:
            if offer.before is not None:
                offer.before(connection, offer.tracked.id)
        payers = {leg.payer for offer in fresh for leg in offer.tracked.legs}
        decision.funds, decision.owing = (
            {(bytes(address), asset): units for address, asset, units in asked.run(connection, list(payers))}
            for asked in (FUNDS, OWED)
        )
        foreign = {offer.user_id for offer in fresh if offer.unsigned is None}
        decision.waiting = dict(WAITING_OF.run(connection, list(foreign)))
        results = [decision.earlier(offer) or decision.take(offer) for offer in offers]
        self._write(connection, decision, self._owners.of(connection, payers))
        return results

    def _write(self, connection: Connection, decision: "Decision", wallets: Mapping[bytes, str]) -> None:
        CLAIM.run_all(connection, decision.claims)
        ADD_TRANSFER.run_all(connection, [transfer_row(offer.tracked, offer.user_id) for offer in decision.taken])
        OWE.run_all(connection, owed_rows(decision.owed.items()))
        lines = [
            posting_row(line, offer.tracked.created_at)
            for offer in decision.taken
            for line in lines_of(offer.tracked, wallets, ("sent",))
        ]
        ADD_POSTING.run_all(connection, lines)
        for offer in decision.taken:
            if offer.tracked.status is Status.REJECTED:
                self._outbox.emit_ends(connection, [(offer.tracked.id, Status.REJECTED.value)], offer.tracked.created_at)
            if offer.also is not None:
                offer.also(connection, offer.tracked.id, offer.tracked.code)


class Decision:
    """What becomes of some orders, one after the other. Pure.

    Attributes:
        claimed: (fingerprint, what was made) by user and idempotency key.
        funds: what the payers can spend.
        owing: what is going to come off their accounts already.
        known: those of them that are here already, by id.
        waiting: by user, how many transactions signed elsewhere wait to be taken in.
        taken, claims, owed: what is to be written.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.claimed: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.funds: dict[Account, int] = {}
        self.owing: dict[Account, int] = {}
        self.known: dict[bytes, Tracked] = {}
        self.waiting: dict[str, int] = {}
        self.taken: list[Offer] = []
        self.claims: list[dict[str, object]] = []
        self.owed: dict[Account, int] = {}

    def earlier(self, offer: Offer) -> Result | None:
        """What it has come to, or its key is bound to, already."""
        if offer.unsigned is not None and (known := self.known.get(offer.tracked.id)) is not None:
            return Accepted(known.id, known)  # nobody else has its salt: it became durable, and nobody heard of it
        if offer.key is None or (bound := self.claimed.get((offer.user_id, offer.key.key))) is None:
            return None
        try:
            return Accepted(matching(offer.key, *bound))
        except Problem as problem:
            return problem

    def take(self, offer: Offer) -> Result:
        """Accept, reject or refuse it."""
        tracked, due, known = offer.tracked, offer.tracked.due(), offer.tracked.id in self.known
        code = Code.OK if offer.unsigned is None else shortfall(self._terms, due, self.funds)
        if code is not Code.OK and not offer.last:
            return Short()
        if code is Code.OK and not known and (problem := self._beyond(offer, due)) is not None:
            return problem
        if offer.key is not None:
            self.claimed[offer.user_id, offer.key.key] = (offer.key.fingerprint, tracked.id)
            row = {"user_id": offer.user_id, "key": offer.key.key, "fingerprint": offer.key.fingerprint}
            self.claims.append(row | {"made": tracked.id, "created_at": tracked.created_at})
        if known:
            return Accepted(tracked.id)
        if code is Code.OK or offer.unsigned is None:
            tracked.status, tracked.finalized_at, tracked.encoded = Status.QUEUED, None, offer.signed
            for account, units in due.items():
                self.funds[account] = self.funds.get(account, 0) - units
                self.owing[account] = self.owing.get(account, 0) + units
                self.owed[account] = self.owed.get(account, 0) + units
        else:  # what cannot be paid has no signature anywhere, so that no block can ever take it
            tracked.status, tracked.finalized_at, tracked.encoded = Status.REJECTED, tracked.created_at, offer.unsigned()
        tracked.code = code
        if offer.unsigned is None:
            self.waiting[offer.user_id] = self.waiting.get(offer.user_id, 0) + 1
        self.known[tracked.id] = tracked
        self.taken.append(offer)
        return Accepted(tracked.id, tracked)

    def _beyond(self, offer: Offer, due: Mapping[Account, int]) -> Problem | None:
        """Which limit an order is beyond that is to be sent."""
        if offer.unsigned is None and self.waiting.get(offer.user_id, 0) >= MAX_HANDED_IN:
            detail = f"at most {MAX_HANDED_IN} transactions signed elsewhere may be under way"
            return Problem(429, "too_many_under_way", detail, retry_after=10)
        if any(self.owing.get(account, 0) + units > MAX_AMOUNT for account, units in due.items()):
            return Problem(422, Code.LIMIT_EXCEEDED, "its payer would owe more than there can be of an asset")
        return None


def shortfall(terms: Terms, owed: Mapping[Account, int], funds: Mapping[Account, int]) -> Code:
    """Why an account cannot pay so much; OK if all can, or issue the asset. ``funds``: what they can spend."""
    for (payer, asset), units in owed.items():
        if payer == terms.issuers[asset]:
            continue
        left = funds.get((payer, asset), 0) - units
        if left < 0:
            return Code.INSUFFICIENT_FUNDS
        if 0 < left < terms.smallest_balances.get(asset, 0):
            return Code.BELOW_SMALLEST_BALANCE
    return Code.OK
