"""Handing in transactions: wallets, the orders they sign, and the one database transaction that accepts them."""

import secrets
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import structs
from sqlalchemy import Connection, Row, delete, func, select

from gateway.database import AccountBalance, Cursor, Database, IdempotencyKey, Posting, User, Wallet, insert
from gateway.epochs import StoredEpochs
from gateway.ledger import Ledger, now_ms, put_postings, put_transfer
from gateway.problems import Problem
from gateway.projection import Status, tracked_order
from gateway.queries import Queries
from gateway.relay import Relay
from gateway.vault import Vault
from node.protocol.address import PREFIX, address_of, decode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.codec import DecodeError, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Asset, Genesis
from node.protocol.keys import generate
from node.protocol.terms import Terms
from node.protocol.transaction import Leg, Order, Transaction, Witness, decode_transaction

MAX_TIME = 2**53
"""The latest time an order can name, ms; only a captured committee's blocks come near."""
MAX_WALLETS = 100
"""Per user."""


class Idempotency(NamedTuple):
    """A client's key for one intent, and the fingerprint of what it asked for under it."""

    key: str
    fingerprint: bytes


class Payments:
    """Wallets and what is paid from and to them.

    Attributes:
        transfers, purchases, balance_reads: since start.
    """

    def __init__(
        self,
        genesis: Genesis,
        database: Database,
        vault: Vault,
        epochs: StoredEpochs,
        ledger: Ledger,
        relay: Relay,
        queries: Queries,
        issuers: dict[str, KeyPair],
        lifetime: int,
    ) -> None:
        self._genesis, self._database, self._vault, self._epochs = genesis, database, vault, epochs
        self._ledger, self._relay, self._queries, self._issuers, self._lifetime = ledger, relay, queries, issuers, lifetime
        self.assets: dict[str, Asset] = {asset.code: asset for asset in genesis.assets}
        self._terms = Terms(genesis)
        self.transfers = self.purchases = self.balance_reads = 0

    async def create_wallet(self, user_id: str, label: str, public_key: bytes | None) -> Row[Any]:
        """A wallet with a key pair of its own, or for a key whose private half its owner keeps. Returns its row.

        Raises:
            Problem: 409, too many wallets, or the key is registered already.
        """
        sealed, pair = None, generate() if public_key is None else None
        public = public_key if pair is None else pair.public
        assert public is not None
        address, wallet_id = address_of(public), uuid.uuid4().hex
        if pair is not None:
            sealed = self._vault.seal(pair.secret, address)
        if address in self._ledger.projection.wallets:
            raise Problem(409, "key_taken", "a wallet with this key exists already")
        row: dict[str, Any] = {"id": wallet_id, "user_id": user_id, "label": label, "address": address, "public_key": public}
        row |= {"sealed_key": sealed, "created_at": now_ms()}

        def save(connection: Connection) -> bool:
            count = connection.execute(select(func.count()).select_from(Wallet).where(Wallet.user_id == user_id)).scalar_one()
            if count < MAX_WALLETS:
                connection.execute(insert(connection, Wallet).values(**row))
            return bool(count < MAX_WALLETS)

        # Followed from the same moment on that its row waits to be written: no block may be missed in between.
        self._ledger.projection.wallets[address] = wallet_id
        if not await self._database.write(save):
            del self._ledger.projection.wallets[address]
            raise Problem(409, "limit_exceeded", f"at most {MAX_WALLETS} wallets")
        if pair is None:
            await self._import_balances(wallet_id, address)
        return await self.wallet(user_id, wallet_id)

    async def _import_balances(self, wallet_id: str, address: bytes) -> None:
        """Start a wallet from what its account holds already; later blocks go on from there."""
        shard = self._epochs.require().shards.shard_of(address)
        electorate = self._epochs.require().electorates[shard]
        try:
            account = await self._queries.account(electorate, address, self._ledger.projection.heights.get(shard, 0))
        except Exception:
            del self._ledger.projection.wallets[address]
            await self._database.write(lambda c: _remove_wallet(c, wallet_id))
            raise
        balances = list(account.balances)
        await self._database.write(lambda c: self._ledger.put_balances(c, address, account.height, balances))

    async def wallet(self, user_id: str, wallet_id: str) -> Row[Any]:
        """A user's wallet. Raises Problem (404), also when it is somebody else's."""
        return await self._database.read(lambda c: _wallet_of(c, user_id, wallet_id))

    async def wallets(self, user_id: str) -> Sequence[Row[Any]]:
        query = select(Wallet.__table__).where(Wallet.user_id == user_id).order_by(Wallet.created_at, Wallet.id)
        return await self._database.read(lambda c: c.execute(query).all())

    async def balances(self, address: bytes) -> tuple[Sequence[Row[Any]], int]:
        """The balances of a wallet's address, and the height of its shard they are as of."""
        shard = self._epochs.require().shards.shard_of(address)
        self.balance_reads += 1
        rows, height = await self._database.read(
            lambda c: (
                c.execute(select(AccountBalance.__table__).where(AccountBalance.address == address)).all(),
                c.execute(select(Cursor.height).where(Cursor.shard == shard)).scalar(),
            )
        )
        return rows, height or 0

    async def fund(self, user_id: str, wallet_id: str, asset: str, amount: str, key: Idempotency | None) -> bytes:
        """Mint to a user's wallet with the issuer's key. Returns the transaction id."""
        units = self._units(asset, amount)
        issuer = self._issuers.get(asset)
        if issuer is None:
            raise Problem(409, "no_issuer_key", f"this gateway cannot mint {asset}")
        wallet = await self.wallet(user_id, wallet_id)
        transaction_id = await self._sign_and_record(user_id, "faucet", issuer, wallet.address, asset, units, "faucet", key)
        self.purchases += 1
        return transaction_id

    async def transfer(
        self, user_id: str, from_wallet: str, to: str, asset: str, amount: str, memo: str, key: Idempotency | None
    ) -> bytes:
        """Pay from a user's wallet to an address, an e-mail address or a wallet. Returns the transaction id."""
        units = self._units(asset, amount)
        wallet, payee, earlier = await self._database.read(
            lambda c: (_wallet_of(c, user_id, from_wallet), _resolve(c, to), _claimed(c, user_id, key))
        )
        if earlier is not None:
            return earlier  # and nothing is taken off the balance meanwhile, on which another payment may depend
        if wallet.sealed_key is None:
            raise Problem(409, "key_not_held", "this wallet's key is yours alone: sign the transaction and POST /v1/transactions")
        if wallet.address == payee:
            raise Problem(422, "same_account", "payer and payee are the same")
        pair = KeyPair(self._vault.open(wallet.sealed_key, wallet.address))
        transaction_id = await self._sign_and_record(user_id, "transfer", pair, payee, asset, units, memo, key)
        self.transfers += 1
        return transaction_id

    async def hand_in(self, user_id: str, encoded: bytes, key: Idempotency | None) -> bytes:
        """Take in a transaction signed elsewhere. Returns its id. Raises Problem (422) with the ledger's code."""
        try:
            transaction = decode_transaction(encoded)
        except DecodeError as error:
            raise Problem(422, Code.MALFORMED, f"not a transaction: {error}") from None
        order = transaction.order
        if order.network != self._epochs.require().network_id:
            raise Problem(422, Code.WRONG_NETWORK, "signed for another network")
        if unknown := {leg.asset for leg in order.legs} - self.assets.keys():
            raise Problem(422, Code.UNKNOWN_ASSET, f"this network has no {min(unknown)}")
        if not transaction.has_valid_signatures():
            raise Problem(422, Code.BAD_SIGNATURE, "a signature does not fit")
        block_time = self._block_time(order)
        if order.valid_until < block_time:
            raise Problem(422, Code.EXPIRED, "valid_until has passed")
        if (code := self._terms.breach(order.legs)) is not Code.OK:
            raise Problem(422, code, "it pays too little of a fee, or somebody less than the smallest balance")
        if order.valid_until > self._genesis.parameters.latest_valid_until(max(block_time, now_ms())):
            raise Problem(422, Code.LIMIT_EXCEEDED, "valid_until is too far ahead")
        return await self._record(user_id, "raw", transaction, encoded, key)

    async def _sign_and_record(
        self, user_id: str, kind: str, payer: KeyPair, payee: bytes, asset: str, units: int, memo: str, key: Idempotency | None
    ) -> bytes:
        leg = Leg(address_of(payer.public), payee, asset, units)
        if leg.payer == leg.payee:
            raise Problem(422, "same_account", "payer and payee are the same")
        legs = self._terms.with_fee(leg)
        if (code := self._terms.breach(legs)) is not Code.OK:
            smallest = format_amount(self._terms.smallest_balances[asset], self.assets[asset].decimals)
            raise Problem(422, code, f"nobody is paid less than {smallest} {asset}")
        draft = Order(self._epochs.require().network_id, legs, memo, 0, secrets.token_bytes(8))
        # A gateway whose clock is slow still signs for long enough.
        valid_until = min(max(now_ms(), self._block_time(draft)) + self._lifetime, MAX_TIME)
        order = structs.replace(draft, valid_until=valid_until)
        if (code := self._shortfall(leg.payer, asset, sum(one.amount for one in legs))) is Code.OK:
            transaction = order.sign([payer])
        else:
            transaction = Transaction(order, (Witness(payer.public, bytes(64)),))  # never signed, so no block can ever take it
        return await self._record(user_id, kind, transaction, encode(transaction), key, code)

    def _shortfall(self, payer: bytes, asset: str, units: int) -> Code:
        """Why a wallet cannot pay so much by what is verified and under way; OK if it can, or issues the asset."""
        if payer == self._terms.issuers[asset]:
            return Code.OK
        left = self._ledger.projection.spendable(payer, asset) - units
        if left < 0:
            return Code.INSUFFICIENT_FUNDS
        return Code.BELOW_SMALLEST_BALANCE if 0 < left < self._terms.smallest_balances.get(asset, 0) else Code.OK

    async def _record(
        self,
        user_id: str,
        kind: str,
        transaction: Transaction,
        encoded: bytes,
        key: Idempotency | None,
        refused: Code = Code.OK,
    ) -> bytes:
        """Accept a transaction durably and send it; one that is refused is recorded as rejected, and not sent. A key used before
        yields the transaction of that time instead.

        Until the database is asked, nothing else runs: what a wallet can spend is looked up and taken off in one step.
        """
        self._relay.check_room()
        transaction_id, created_at = transaction.id, now_ms()
        known = self._ledger.projection.active.get(transaction_id)
        tracked = known or tracked_order(transaction.order, transaction_id, encoded, self._epochs.require().shards, own=True)
        postings = self._ledger.projection.postings_of(tracked, ("sent",))

        def save(connection: Connection) -> tuple[bytes, bool]:
            if key is not None and (earlier := _claim(connection, user_id, key, transaction_id, created_at)) is not None:
                return earlier, False
            fresh = put_transfer(connection, tracked, user_id, kind, created_at)
            put_postings(connection, postings)
            return transaction_id, fresh

        if refused is not Code.OK:
            tracked.status, tracked.code = Status.REJECTED, refused
        elif known is None:
            self._ledger.track(tracked)
        try:
            recorded, fresh = await self._database.write(save)
        except BaseException:
            if known is None:
                self._ledger.untrack(tracked)
            raise
        if fresh and refused is not Code.OK:
            self._ledger.finished[Status.REJECTED] += 1
        elif fresh and not tracked.status.is_final:
            self._relay.add(tracked)
        elif known is None and not fresh:
            self._ledger.untrack(tracked)
        return recorded

    def _block_time(self, order: Order) -> int:
        home = self._epochs.require().shards.shard_of(order.payers[0])
        return self._ledger.projection.times.get(home, 0)

    def _units(self, asset: str, amount: str) -> int:
        if asset not in self.assets:
            raise Problem(422, Code.UNKNOWN_ASSET, f"this network has no {asset}")
        try:
            units = parse_amount(amount, self.assets[asset].decimals)
        except ValueError as error:
            raise Problem(422, "invalid_amount", str(error)) from None
        if units == 0:
            raise Problem(422, "invalid_amount", "an amount is positive")
        return units


def _claim(connection: Connection, user_id: str, key: Idempotency, transaction_id: bytes, created_at: int) -> bytes | None:
    """Bind a client's key to a transaction; returns the one it is bound to already. Raises Problem (409) on another body."""
    if (earlier := _claimed(connection, user_id, key)) is None:
        values = {"user_id": user_id, "key": key.key, "fingerprint": key.fingerprint, "transaction_id": transaction_id}
        connection.execute(insert(connection, IdempotencyKey).values(**values, created_at=created_at))
    return earlier


def _claimed(connection: Connection, user_id: str, key: Idempotency | None) -> bytes | None:
    """The transaction that a client's key is bound to, if it is. Raises Problem (409) on another body."""
    if key is None:
        return None
    query = select(IdempotencyKey.__table__).where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key.key)
    if (row := connection.execute(query).first()) is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise Problem(409, "idempotency_conflict", "this Idempotency-Key was used for another request")
    earlier: bytes = row.transaction_id
    return earlier


def _wallet_of(connection: Connection, user_id: str, wallet_id: str) -> Row[Any]:
    row = connection.execute(select(Wallet.__table__).where(Wallet.id == wallet_id, Wallet.user_id == user_id)).first()
    if row is None:
        raise Problem(404, "wallet_not_found", "you have no such wallet")
    return row


def _resolve(connection: Connection, to: str) -> bytes:
    """The address that ``to`` means: itself, a user's first wallet by e-mail, or a wallet's by id. Raises Problem (422)."""
    if to.lower().startswith(f"{PREFIX}1"):
        try:
            return decode_address(to)
        except ValueError as error:
            raise Problem(422, "invalid_address", str(error)) from None
    query = select(Wallet.address).order_by(Wallet.created_at, Wallet.id).limit(1)
    if "@" in to:
        query = query.join(User, User.id == Wallet.user_id).where(User.email == to.strip().lower())
    else:
        query = query.where(Wallet.id == to)
    address = connection.execute(query).scalar()
    if address is None:
        raise Problem(422, "unknown_recipient", "nobody with a wallet by that name")
    return address


def _remove_wallet(connection: Connection, wallet_id: str) -> None:
    connection.execute(delete(Posting).where(Posting.wallet_id == wallet_id))
    connection.execute(delete(Wallet).where(Wallet.id == wallet_id))
