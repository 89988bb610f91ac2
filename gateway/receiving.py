"""Receiving addresses: a payment to an e-mail address goes to an address of its own, which tells the payer nothing of the payee.

It is in the payer's shard, whoever is paid and whether or not somebody has an account by that e-mail address. If somebody has, it
is one more address of that wallet from the beginning. If not, it waits to be claimed by who proves to read that e-mail; after
``WAITS_MS`` the money goes back. Its key is made durable in the database transaction that accepts the payment.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, or_, select, true, update

from gateway.database import AccountBalance, Database, ReceivingAddress, Transfer, Wallet, insert, now_ms
from gateway.epochs import StoredEpochs
from gateway.events.outbox import Outbox
from gateway.identity.tables import User
from gateway.identity.text import email_address
from gateway.jobs import Jobs
from gateway.problems import Problem
from gateway.projection import Sent, Status, Tracked
from gateway.rows import put_postings, tracked_row
from gateway.vault import Vault
from node.protocol.address import address_of
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate

RETURN = "return"
"""The kind of job that gives back what nobody claimed."""
WAITS_MS = 30 * 24 * 3600 * 1000
_MOST_SOURCES = 64
_MOST_CLAIMED = 1000


class Unclaimed(NamedTuple):
    """``payer``: the user who paid. ``returned``: the latest transfer that was to give it back. ``held``: what the address can
    spend, by asset."""

    sealed_key: bytes
    payer: str
    paid: Tracked
    returned: Tracked | None
    held: dict[str, int]


class Fresh:
    """An address for one payment, stored with it."""

    def __init__(self, receiving: "Receiving", row: dict[str, Any]) -> None:
        self._receiving, self._row = receiving, row
        self.address: bytes = row["address"]

    def save(self, connection: Connection, transaction_id: bytes, refused: Code) -> None:
        """In the write that accepts the payment."""
        if refused is Code.OK:
            self._receiving.save(connection, self._row | {"transaction_id": transaction_id, "created_at": now_ms()})


class Receiving:
    """All receiving addresses."""

    def __init__(self, database: Database, vault: Vault, epochs: StoredEpochs, outbox: Outbox, jobs: Jobs, devnet: bool) -> None:
        """``devnet``: who has registered an e-mail address receives by it without having verified it."""
        self._database, self._vault, self._epochs = database, vault, epochs
        self._outbox, self._jobs = outbox, jobs
        self._proven: ColumnElement[bool] = true() if devnet else User.verified_at.is_not(None)

    async def fresh(self, email: str, payer: bytes) -> Fresh:
        """An address in the payer's shard, for a payment to ``email``. Raises Problem (422): nobody has such an e-mail."""
        try:
            email = email_address(email)
        except ValueError as error:
            raise Problem(422, "invalid_recipient", str(error)) from None
        shards = self._epochs.require().shards
        home = shards.shard_of(payer)
        pair = next(pair for pair in iter(generate, None) if shards.shard_of(address_of(pair.public)) == home)
        address, wallet_id = address_of(pair.public), await self._owner_of(email)
        row = {"address": address, "email": email, "wallet_id": wallet_id, "public_key": pair.public, "returned": None}
        return Fresh(self, row | {"sealed_key": self._vault.seal(pair.secret, address)})

    def save(self, connection: Connection, row: dict[str, Any]) -> None:
        """Keep an address, and give back in time what nobody claims."""
        connection.execute(insert(connection, ReceivingAddress).values(**row))
        if row["wallet_id"] is None:
            self._jobs.add(connection, RETURN, row["address"].hex(), row["created_at"] + WAITS_MS)

    async def funded(self, wallet_id: str, asset: str) -> Sequence[Row[Any]]:
        """A wallet's receiving addresses that hold something of an asset, those with most first: (address, sealed_key, ...)."""
        query = select(ReceivingAddress.__table__).join(AccountBalance, AccountBalance.address == ReceivingAddress.address)
        query = query.where(ReceivingAddress.wallet_id == wallet_id, AccountBalance.asset == asset, AccountBalance.available > 0)
        query = query.order_by(AccountBalance.available.desc(), ReceivingAddress.address).limit(_MOST_SOURCES)
        return await self._database.read(lambda c: c.execute(query).all())

    async def addresses(self, wallet_id: str, addresses: Iterable[bytes]) -> Sequence[Row[Any]]:
        """Some of a wallet's receiving addresses: (address, sealed_key, ...)."""
        query = select(ReceivingAddress.__table__).where(ReceivingAddress.wallet_id == wallet_id)
        query = query.where(ReceivingAddress.address.in_(list(addresses)))
        return await self._database.read(lambda c: c.execute(query).all())

    async def claim(self, user_id: str, email: str) -> int:
        """Give a user who reads ``email`` what waits for it, if there is a wallet to put it in. Returns how many payments."""
        waiting = select(ReceivingAddress.address, ReceivingAddress.transaction_id).where(
            ReceivingAddress.email == email, ReceivingAddress.wallet_id.is_(None), ReceivingAddress.returned.is_(None)
        )
        wallet_id, rows = await self._database.read(
            lambda c: (
                c.execute(_wallet_of(self._proven, User.id == user_id)).scalar(),
                c.execute(waiting.limit(_MOST_CLAIMED)).all(),
            )
        )
        if wallet_id is None or not rows:
            return 0

        def give(connection: Connection) -> int:
            given = {}
            for row in rows:
                free = (ReceivingAddress.wallet_id.is_(None), ReceivingAddress.returned.is_(None))
                mine = update(ReceivingAddress).where(ReceivingAddress.address == row.address, *free).values(wallet_id=wallet_id)
                if connection.execute(mine).rowcount:
                    given[row.address] = row.transaction_id
            self._tell(connection, user_id, wallet_id, given)
            return len(given)

        return await self._outbox.write(give)

    def _tell(self, connection: Connection, user_id: str, wallet_id: str, payments: Mapping[bytes, bytes]) -> None:
        """History lines and events of payments that are committed; those of others come with their block."""
        query = select(Transfer.__table__).where(
            Transfer.transaction_id.in_(payments.values()), Transfer.status == Status.COMMITTED
        )
        done = [tracked_row(row) for row in connection.execute(query).mappings()]
        for tracked in done:
            legs = [number for number, leg in enumerate(tracked.legs) if payments.get(leg.payee) == tracked.id]
            paid = [(number, tracked.legs[number]) for number in legs]
            lines = [Sent(wallet_id, tracked.id, number, "received", leg.asset, leg.payer) for number, leg in paid]
            put_postings(connection, lines, now_ms())
        self._outbox.emit_claimed(connection, user_id, [tracked.id for tracked in done])

    async def unclaimed(self, address: bytes) -> Unclaimed | None:
        """What was paid to an address that is nobody's yet; None when it is somebody's, or there is no such address."""
        query = select(ReceivingAddress.__table__).where(ReceivingAddress.address == address)
        query = query.where(ReceivingAddress.wallet_id.is_(None))

        def find(connection: Connection) -> Unclaimed | None:
            if (row := connection.execute(query).first()) is None:
                return None
            ids = [one for one in (row.transaction_id, row.returned) if one is not None]
            found = connection.execute(select(Transfer.__table__).where(Transfer.transaction_id.in_(ids))).mappings()
            transfers = {one["transaction_id"]: one for one in found}
            paid, returned = transfers[row.transaction_id], transfers.get(row.returned)
            back = None if returned is None else tracked_row(returned)
            balances = select(AccountBalance.asset, AccountBalance.available).where(AccountBalance.address == address)
            held = dict(connection.execute(balances).tuples().all())
            return Unclaimed(row.sealed_key, paid["user_id"], tracked_row(paid), back, held)

        return await self._database.read(find)

    def signer(self, address: bytes, sealed_key: bytes) -> KeyPair:
        """The key pair of an address that is nobody's yet."""
        return KeyPair(self._vault.open(sealed_key, address))

    async def _owner_of(self, email: str) -> str | None:
        return await self._database.read(lambda c: c.execute(_wallet_of(self._proven, User.email == email)).scalar())


def mark_returned(connection: Connection, address: bytes, by: bytes) -> None:
    """Note which transfer gives a payment back. Raises Problem (409) when somebody has claimed it meanwhile."""
    unclaimed = update(ReceivingAddress).where(ReceivingAddress.address == address, ReceivingAddress.wallet_id.is_(None))
    if not connection.execute(unclaimed.values(returned=by)).rowcount:
        raise Problem(409, "claimed", "this payment has been claimed")


def held_by(wallet_id: str, address: bytes) -> Select[Any]:
    """What a wallet holds on its own address and on those it received on: (asset, available, held, frozen)."""
    mine = select(ReceivingAddress.address).where(ReceivingAddress.wallet_id == wallet_id)
    some_frozen = func.max(case((AccountBalance.frozen, 1), else_=0))
    columns = [func.sum(AccountBalance.available), func.sum(AccountBalance.held), some_frozen]
    named = [column.label(name) for column, name in zip(columns, ("available", "held", "frozen"), strict=True)]
    query = select(AccountBalance.asset, *named).group_by(AccountBalance.asset)
    return query.where(or_(AccountBalance.address == address, AccountBalance.address.in_(mine)))


def _wallet_of(*owner: ColumnElement[bool]) -> Select[str]:
    """The wallet in which a user receives: the default one, or the first, of those whose keys are here."""
    query = select(Wallet.id).join(User, User.id == Wallet.user_id).where(*owner, Wallet.sealed_key.is_not(None))
    return query.order_by(case((Wallet.id == User.default_wallet, 0), else_=1), Wallet.created_at, Wallet.id).limit(1)
