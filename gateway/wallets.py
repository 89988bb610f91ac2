"""Wallets: whose they are, what they hold, and the keys that sign for them.

Nothing but a wallet's label and whether it is put aside ever changes, so the rows used lately are kept in memory.
"""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from gateway.database import Cursor, Database, Wallet, insert, now_ms
from gateway.epochs import StoredEpochs
from gateway.ledger import Ledger
from gateway.problems import Problem
from gateway.queries import Queries
from gateway.receiving import held_by
from gateway.statements import RECEIVING, WALLETS
from gateway.vault import Keyring, Vault
from node.protocol.address import PREFIX, address_of, decode_address
from node.protocol.chain import Chain
from node.protocol.crypto import KeyPair
from node.protocol.keys import generate
from node.protocol.queries import Account

MAX_WALLETS = 100
"""Per user."""
_REMEMBERED = 20_000
Known = tuple[Chain, Account]
"""What an account holds, by the word of the committee that keeps this chain."""
_TRIES = 5
"""To take over an account that others may pay at this moment."""


class Wallets:
    """Everybody's.

    Attributes:
        keyring: the private keys that were used a moment ago.
        balance_reads: since start.
    """

    def __init__(self, database: Database, vault: Vault, epochs: StoredEpochs, ledger: Ledger, queries: Queries) -> None:
        self._database, self._vault, self._epochs, self._ledger, self._queries = database, vault, epochs, ledger, queries
        self._known: OrderedDict[str, Row[Any]] = OrderedDict()
        self.keyring = Keyring(vault)
        self.balance_reads = 0

    async def create(self, user_id: str, label: str, public_key: bytes | None = None, brought: KeyPair | None = None) -> Row[Any]:
        """A wallet with a key pair of its own, for a key whose private half its owner keeps, or with one that is brought along.

        Returns its row.

        Raises:
            Problem: 409, too many wallets, or the key is registered already.
        """
        pair = brought or (generate() if public_key is None else None)
        public = public_key if pair is None else pair.public
        assert public is not None
        address, wallet_id = address_of(public), uuid.uuid4().hex
        sealed = None if pair is None else self._vault.seal(pair.secret, address)
        row: dict[str, Any] = {"id": wallet_id, "user_id": user_id, "label": label, "address": address, "public_key": public}
        row |= {"sealed_key": sealed, "archived": False, "created_at": now_ms()}

        for _ in range(_TRIES):
            account = None if public_key is None and brought is None else await self._account(address)
            done = await self._database.write(partial(self._save, row=row, account=account))
            if isinstance(done, Problem):
                raise done
            if done:
                return await self.wallet(user_id, wallet_id)
        raise Problem(503, "not_ready", "the account changes too fast to be taken over now", retry_after=2)

    async def check_room(self, user_id: str) -> None:
        """Raises Problem (409): this user can have no more wallets."""
        if await self._database.read(lambda c: _has_most(c, user_id)):
            raise _too_many()

    async def _account(self, address: bytes) -> Known:
        """What an account holds already, as of the block at which the database stands, or a later one."""
        await self._ledger.look()
        home = self._epochs.home_of(address)
        return home, await self._queries.account(self._epochs.electorates[home], address, self._ledger.place(home).height)

    def _save(self, connection: Connection, row: dict[str, Any], account: Known | None) -> Problem | bool:
        """A wallet's row, with what its account holds: it is durable before anybody can pay it, so no block that concerns it is
        missed. False: the database has come further than what is known of the account."""
        address = row["address"]
        if any(any(lookup.run(connection, [address])) for lookup in (WALLETS, RECEIVING)):
            return Problem(409, "key_taken", "a wallet with this key exists already")
        if _has_most(connection, row["user_id"]):
            return _too_many()
        if account is not None:
            home, held = account
            height, epoch = connection.execute(select(_height_of(home).scalar_subquery(), func.max(Cursor.epoch))).one()
            # Another process may follow an epoch already that this one has not heard of.
            later = (epoch or 0) > home.epoch or (height or 0) > held.height
            if later or home != self._epochs.home_of(address):
                return False
            self._ledger.put_balances(connection, address, home.epoch, held.height, list(held.balances))
        connection.execute(insert(connection, Wallet).values(**row))
        return True

    async def change(self, user_id: str, wallet_id: str, label: str | None, archived: bool | None) -> Row[Any]:
        """Rename a wallet, put it aside or take it up again. Returns its row. Raises Problem (404)."""
        await self.wallet(user_id, wallet_id)
        values = {name: value for name, value in (("label", label), ("archived", archived)) if value is not None}
        if values:
            statement = update(Wallet).where(Wallet.id == wallet_id).values(**values)
            await self._database.write(lambda c: c.execute(statement) and None)
        return await self.latest(user_id, wallet_id)

    async def wallet(self, user_id: str, wallet_id: str) -> Row[Any]:
        """A user's wallet. Raises Problem (404), also when it is somebody else's."""
        row = await self._by_id(wallet_id)
        if row is None or row.user_id != user_id:
            raise Problem(404, "wallet_not_found", "you have no such wallet")
        return row

    async def latest(self, user_id: str, wallet_id: str) -> Row[Any]:
        """As ``wallet``, with the label it has now: another process may have changed it."""
        self._known.pop(wallet_id, None)
        return await self.wallet(user_id, wallet_id)

    async def wallets(self, user_id: str) -> Sequence[Row[Any]]:
        query = select(Wallet.__table__).where(Wallet.user_id == user_id).order_by(Wallet.created_at, Wallet.id)
        return await self._database.read(lambda c: c.execute(query).all())

    async def balances(self, wallet: Row[Any]) -> tuple[Sequence[Row[Any]], Chain, int]:
        """What a wallet holds on all its addresses, by asset, and the height that its own shard's chain has been followed to."""
        self.balance_reads += 1
        home, query = self._epochs.home_of(wallet.address), held_by(wallet.id, wallet.address)
        rows, height = await self._database.read(lambda c: (c.execute(query).all(), c.execute(_height_of(home)).scalar()))
        return rows, home, height or 0

    async def address_of(self, to: str) -> bytes:
        """What ``to`` means: an address, or a wallet by its id. Raises Problem (422)."""
        if to.lower().startswith(f"{PREFIX}1"):
            try:
                return _decoded(to)
            except ValueError as error:
                raise Problem(422, "invalid_address", str(error)) from None
        if (row := await self._by_id(to)) is None:
            raise Problem(422, "unknown_recipient", "no wallet has this id")
        address: bytes = row.address
        return address

    def signer(self, wallet: Row[Any]) -> KeyPair:
        """The key pair of a wallet. Raises Problem (409) when its owner keeps it."""
        if wallet.sealed_key is None:
            raise Problem(409, "key_not_held", "this wallet's key is yours alone: sign the transaction and POST /v1/transactions")
        return self.keyring.open(wallet.user_id, wallet.sealed_key, wallet.address)

    async def _by_id(self, wallet_id: str) -> Row[Any] | None:
        if (row := self._known.get(wallet_id)) is not None:
            self._known.move_to_end(wallet_id)
            return row
        row = await self._database.read(lambda c: c.execute(select(Wallet.__table__).where(Wallet.id == wallet_id)).first())
        if row is not None:
            self._known[wallet_id] = row
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return row


def _has_most(connection: Connection, user_id: str) -> bool:
    mine = select(func.count()).select_from(Wallet).where(Wallet.user_id == user_id)
    return connection.execute(mine).scalar_one() >= MAX_WALLETS


def _too_many() -> Problem:
    return Problem(409, "limit_exceeded", f"at most {MAX_WALLETS} wallets")


def _height_of(chain: Chain) -> Select[int]:
    return select(Cursor.height).where(Cursor.epoch == chain.epoch, Cursor.shard == chain.shard)


_decoded = lru_cache(maxsize=1 << 14)(decode_address)
