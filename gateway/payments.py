"""Handing in transactions: the orders that wallets sign, and the one database transaction that accepts them."""

import secrets
from typing import NamedTuple

from sqlalchemy import Connection

from gateway.database import Database
from gateway.epochs import StoredEpochs
from gateway.ledger import Ledger, now_ms, put_postings, transfer_row
from gateway.problems import Problem
from gateway.projection import Status, Tracked, tracked_order
from gateway.relay import Relay
from gateway.statements import ADD_TRANSFER, CLAIM, CLAIMED
from gateway.wallets import Wallets
from node.protocol.address import address_of
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.codec import DecodeError, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Asset, Genesis
from node.protocol.terms import Terms
from node.protocol.transaction import Leg, Order, Transaction, Witness, decode_transaction

MAX_TIME = 2**53
"""The latest time an order can name, ms; only a captured committee's blocks come near."""


class Idempotency(NamedTuple):
    """A client's key for one intent, and the fingerprint of what it asked for under it."""

    key: str
    fingerprint: bytes


class Accepted(NamedTuple):
    """A transaction that is durable here; ``tracked`` unless it was so before."""

    id: bytes
    tracked: Tracked | None = None


class Payments:
    """What is paid from and to wallets.

    Attributes:
        transfers, purchases: since start.
    """

    def __init__(
        self,
        genesis: Genesis,
        database: Database,
        wallets: Wallets,
        epochs: StoredEpochs,
        ledger: Ledger,
        relay: Relay,
        issuers: dict[str, KeyPair],
        lifetime: int,
    ) -> None:
        self._genesis, self._database, self._wallets, self._epochs = genesis, database, wallets, epochs
        self._ledger, self._relay, self._issuers, self._lifetime = ledger, relay, issuers, lifetime
        self.assets: dict[str, Asset] = {asset.code: asset for asset in genesis.assets}
        self._terms = Terms(genesis)
        self.transfers = self.purchases = 0

    async def fund(self, user_id: str, wallet_id: str, asset: str, amount: str, key: Idempotency | None) -> Accepted:
        """Mint to a user's wallet with the issuer's key."""
        units = self._units(asset, amount)
        issuer = self._issuers.get(asset)
        if issuer is None:
            raise Problem(409, "no_issuer_key", f"this gateway cannot mint {asset}")
        wallet = await self._wallets.wallet(user_id, wallet_id)
        accepted = await self._sign_and_record(user_id, "faucet", issuer, wallet.address, asset, units, "faucet", key)
        self.purchases += 1
        return accepted

    async def transfer(
        self, user_id: str, from_wallet: str, to: str, asset: str, amount: str, memo: str, key: Idempotency | None
    ) -> Accepted:
        """Pay from a user's wallet to an address, an e-mail address or a wallet."""
        units = self._units(asset, amount)
        wallet = await self._wallets.wallet(user_id, from_wallet)
        payee = await self._wallets.address_of(to)
        if key is not None and (earlier := await self._database.read(lambda c: _claimed(c, user_id, key))) is not None:
            return Accepted(earlier)  # and nothing is taken off the balance meanwhile, on which another payment may depend
        if wallet.sealed_key is None:
            raise Problem(409, "key_not_held", "this wallet's key is yours alone: sign the transaction and POST /v1/transactions")
        if wallet.address == payee:
            raise Problem(422, "same_account", "payer and payee are the same")
        pair = self._wallets.signer(wallet)
        accepted = await self._sign_and_record(user_id, "transfer", pair, payee, asset, units, memo, key)
        self.transfers += 1
        return accepted

    async def hand_in(self, user_id: str, encoded: bytes, key: Idempotency | None) -> Accepted:
        """Take in a transaction signed elsewhere. Raises Problem (422) with the ledger's code."""
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
        block_time = self._block_time(order.legs[0].payer)
        if order.valid_until < block_time:
            raise Problem(422, Code.EXPIRED, "valid_until has passed")
        if (code := self._terms.breach(order.legs)) is not Code.OK:
            raise Problem(422, code, "it pays too little of a fee, or somebody less than the smallest balance")
        if order.valid_until > self._genesis.parameters.latest_valid_until(max(block_time, now_ms())):
            raise Problem(422, Code.LIMIT_EXCEEDED, "valid_until is too far ahead")
        return await self._record(user_id, "raw", order, order.id, encoded, key)

    async def _sign_and_record(
        self, user_id: str, kind: str, payer: KeyPair, payee: bytes, asset: str, units: int, memo: str, key: Idempotency | None
    ) -> Accepted:
        leg = Leg(address_of(payer.public), payee, asset, units)
        if leg.payer == leg.payee:
            raise Problem(422, "same_account", "payer and payee are the same")
        legs = self._terms.with_fee(leg)
        if (code := self._terms.breach(legs)) is not Code.OK:
            smallest = format_amount(self._terms.smallest_balances[asset], self.assets[asset].decimals)
            raise Problem(422, code, f"nobody is paid less than {smallest} {asset}")
        # A gateway whose clock is slow still signs for long enough.
        valid_until = min(max(now_ms(), self._block_time(leg.payer)) + self._lifetime, MAX_TIME)
        order = Order(self._epochs.require().network_id, legs, memo, valid_until, secrets.token_bytes(8))
        signed = order.id
        # What cannot be paid is never signed, so that no block can ever take it.
        code = self._shortfall(leg.payer, asset, sum(one.amount for one in legs))
        witness = Witness(payer.public, payer.sign(signed) if code is Code.OK else bytes(64))
        encoded = encode(Transaction(order, (witness,)))
        return await self._record(user_id, kind, order, signed, encoded, key, code)

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
        order: Order,
        transaction_id: bytes,
        encoded: bytes,
        key: Idempotency | None,
        refused: Code = Code.OK,
    ) -> Accepted:
        """Accept a transaction durably and send it; one that is refused is recorded as rejected, and not sent. A key used before
        yields the transaction of that time instead.

        Until the database is asked, nothing else runs: what a wallet can spend is looked up and taken off in one step.
        """
        self._relay.check_room()
        created_at = now_ms()
        known = self._ledger.projection.active.get(transaction_id)
        if (tracked := known) is None:
            tracked = tracked_order(order, transaction_id, encoded, self._epochs.require().shards, own=True)
            tracked.kind, tracked.created_at = kind, created_at
        postings = self._ledger.projection.postings_of(tracked, ("sent",))

        def save(connection: Connection) -> tuple[bytes, bool]:
            if key is not None and (earlier := _claim(connection, user_id, key, transaction_id, created_at)) is not None:
                return earlier, False
            row = transfer_row(tracked, user_id) | {"kind": kind, "created_at": created_at}
            fresh = bool(ADD_TRANSFER.run(connection, row).rowcount)
            put_postings(connection, postings)
            return transaction_id, fresh

        if refused is not Code.OK:
            tracked.status, tracked.code, tracked.finalized_at = Status.REJECTED, refused, created_at
        elif known is None:
            self._ledger.track(tracked)
        fresh = False
        try:
            recorded, fresh = await self._database.write(save)
        finally:
            if known is None and not fresh:
                self._ledger.untrack(tracked)
        if fresh and refused is not Code.OK:
            tracked.shown = Status.REJECTED
            self._ledger.finished[Status.REJECTED] += 1
        elif fresh and not tracked.status.is_final:
            self._relay.add(tracked)
        return Accepted(recorded, tracked if fresh and known is None else None)

    def _block_time(self, payer: bytes) -> int:
        """Of an account's shard, ms."""
        home = self._epochs.require().shards.shard_of(payer)
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
    row = {"user_id": user_id, "key": key.key, "fingerprint": key.fingerprint, "transaction_id": transaction_id}
    fresh = CLAIM.run(connection, row | {"created_at": created_at}).rowcount
    return None if fresh else _claimed(connection, user_id, key)


def _claimed(connection: Connection, user_id: str, key: Idempotency) -> bytes | None:
    """The transaction that a client's key is bound to, if it is. Raises Problem (409) on another body."""
    row = CLAIMED.run(connection, {"user_id": user_id, "key": key.key}).fetchone()
    if row is None:
        return None
    fingerprint, earlier = row
    if fingerprint != key.fingerprint:
        raise Problem(409, "idempotency_conflict", "this Idempotency-Key was used for another request")
    return bytes(earlier)
