"""Handing in transactions: the orders that wallets sign, and the one database transaction that accepts them."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from gateway.database import Database, now_ms
from gateway.epochs import StoredEpochs
from gateway.idempotency import Idempotency, claim, claimed
from gateway.ledger import Ledger, put_postings, transfer_row
from gateway.problems import Problem
from gateway.projection import Status, Tracked, tracked_order
from gateway.receiving import Receiving
from gateway.relay import Relay
from gateway.sources import gather
from gateway.statements import ADD_TRANSFER
from gateway.wallets import Wallets
from node.protocol.address import address_of
from node.protocol.amounts import parse_amount
from node.protocol.codec import DecodeError, encode
from node.protocol.codes import Code
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Asset, Genesis
from node.protocol.limits import MAX_LEGS
from node.protocol.terms import Terms
from node.protocol.transaction import Leg, Order, Transaction, Witness, decode_transaction

MAX_TIME = 2**53
"""The latest time an order can name, ms; only a captured committee's blocks come near."""


Also = Callable[[Connection, bytes, Code], None]
"""What is written together with a transfer when it is accepted, once: given its id, and why it is rejected at once, if it is."""


class Purse(NamedTuple):
    """A wallet's addresses that have something of an asset, its own first, and what each of them can spend."""

    addresses: list[bytes]
    sealed_keys: list[bytes]
    spendable: list[int]


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
        receiving: Receiving,
        epochs: StoredEpochs,
        ledger: Ledger,
        relay: Relay,
        issuers: dict[str, KeyPair],
        lifetime: int,
    ) -> None:
        self._genesis, self._database, self._wallets, self._epochs = genesis, database, wallets, epochs
        self._receiving = receiving
        self._ledger, self._relay, self._issuers, self._lifetime = ledger, relay, issuers, lifetime
        self.assets: dict[str, Asset] = {asset.code: asset for asset in genesis.assets}
        self._terms = Terms(genesis)
        self.transfers = self.purchases = 0

    async def transfer(
        self, user_id: str, from_wallet: str, to: str, asset: str, amount: str, memo: str, key: Idempotency | None
    ) -> Accepted:
        """Pay from a user's wallet to an address, an e-mail address or a wallet."""
        units = self.units(asset, amount)
        wallet = await self._wallets.wallet(user_id, from_wallet)
        if key is not None and (earlier := await self._database.read(lambda c: claimed(c, user_id, key))) is not None:
            return Accepted(earlier)  # and nothing is taken off the balance meanwhile, on which another payment may depend
        fresh = await self._receiving.fresh(to, wallet.address) if "@" in to else None
        payee = await self._wallets.address_of(to) if fresh is None else fresh.address
        accepted = None
        try:
            pairs, legs = await self.draw(wallet, payee, asset, units)
            accepted = await self.pay(user_id, "transfer", pairs, legs, memo, key, None if fresh is None else fresh.save)
        finally:
            if fresh is not None and (accepted is None or accepted.tracked is None or accepted.tracked.code is not Code.OK):
                fresh.drop()
        self.transfers += 1
        return accepted

    async def draw(self, wallet: Row[Any], payee: bytes, asset: str, units: int) -> tuple[Sequence[KeyPair], Sequence[Leg]]:
        """Keys and legs that pay from a wallet: see ``draw_all``."""
        return await self.draw_all(wallet, (Leg(wallet.address, payee, asset, units),))

    async def draw_all(self, wallet: Row[Any], wanted: Sequence[Leg]) -> tuple[Sequence[KeyPair], Sequence[Leg]]:
        """Keys and legs for payments from a wallet, given as legs from its own address: from that, if it has enough, else also
        from those on which it received. What it cannot pay stays as it is. Raises Problem (409) when its owner keeps the key."""
        pair = self._wallets.signer(wallet)
        if self._covers(wallet.address, wanted):
            return (pair,), wanted
        purses, pairs, legs = dict[str, Purse](), {wallet.address: pair}, list[Leg]()
        for leg in wanted:
            if leg.asset not in purses:
                purses[leg.asset] = await self._purse(wallet, leg.asset)
            purse = purses[leg.asset]
            fee = 0 if leg.payee == self._terms.issuers[leg.asset] else self.fee(leg.asset)
            parts = gather(purse.spendable, leg.amount, fee, self._terms.smallest_balances.get(leg.asset, 0))
            if parts is None:
                return (pair,), wanted
            for index, units in parts:
                purse.spendable[index] -= units + fee
                address = purse.addresses[index]
                pairs[address] = self._wallets.keyring.open(wallet.user_id, purse.sealed_keys[index], address)
                legs.append(Leg(address, leg.payee, leg.asset, units))
        return list(pairs.values()), legs

    async def signers(self, wallet: Row[Any], addresses: Iterable[bytes]) -> list[KeyPair]:
        """The key pairs of some of a wallet's own addresses. Raises Problem (409) when its owner keeps the key."""
        pairs = {wallet.address: self._wallets.signer(wallet)}
        for row in await self._receiving.addresses(wallet.id, addresses):
            pairs[row.address] = self._wallets.keyring.open(wallet.user_id, row.sealed_key, row.address)
        return [pairs[address] for address in addresses]

    def _covers(self, address: bytes, legs: Sequence[Leg]) -> bool:
        """Whether an address alone has enough for some legs."""
        if len(legs) == 1:
            asset, owed = legs[0].asset, legs[0].amount + self.fee(legs[0].asset)
            return self._ledger.projection.spendable(address, asset) >= owed
        due: dict[str, int] = {}
        for leg in legs:
            due[leg.asset] = due.get(leg.asset, 0) + leg.amount + self.fee(leg.asset)
        return all(self._ledger.projection.spendable(address, asset) >= units for asset, units in due.items())

    async def _purse(self, wallet: Row[Any], asset: str) -> Purse:
        others = await self._receiving.funded(wallet.id, asset)
        addresses = [wallet.address, *(other.address for other in others)]
        sealed_keys = [wallet.sealed_key, *(other.sealed_key for other in others)]
        return Purse(addresses, sealed_keys, [self._ledger.projection.spendable(address, asset) for address in addresses])

    async def mint(
        self,
        user_id: str,
        kind: str,
        payee: bytes,
        asset: str,
        units: int,
        memo: str = "",
        key: Idempotency | None = None,
        also: Also | None = None,
    ) -> Accepted:
        """Pay with the issuer's key. Raises Problem as ``pay``, and 409 when that is not here."""
        issuer = self.issuer(asset)
        legs = (Leg(address_of(issuer.public), payee, asset, units),)
        accepted = await self.pay(user_id, kind, (issuer,), legs, memo, key, also)
        self.purchases += 1
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

    async def pay(
        self,
        user_id: str,
        kind: str,
        payers: Sequence[KeyPair],
        legs: Sequence[Leg],
        memo: str = "",
        key: Idempotency | None = None,
        also: Also | None = None,
    ) -> Accepted:
        """Sign an order of ``legs`` and the fees they cost with its payers' keys, and accept it: all of it happens, or nothing.

        It is rejected at once, and not signed, when a payer has too little. With a ``key`` used before nothing new happens. What
        ``also`` raises undoes everything.

        Raises:
            Problem: 422, it can never be valid; 503, too much is under way.
        """
        legs = self.with_fees(legs)
        # A gateway whose clock is slow still signs for long enough.
        valid_until = min(max(now_ms(), self._block_time(legs[0].payer)) + self._lifetime, MAX_TIME)
        order = Order(self._epochs.require().network_id, legs, memo, valid_until, secrets.token_bytes(8))
        signed = order.id
        # What cannot be paid is never signed, so that no block can ever take it.
        code = self.shortfall(legs)
        by_address = {address_of(pair.public): pair for pair in payers}
        pairs = [by_address[payer] for payer in order.payers]
        witnesses = tuple([Witness(pair.public, pair.sign(signed) if code is Code.OK else bytes(64)) for pair in pairs])
        return await self._record(user_id, kind, order, signed, encode(Transaction(order, witnesses)), key, code, also)

    def issuer(self, asset: str) -> KeyPair:
        """An asset's issuer key. Raises Problem (409) when it is not here."""
        if (pair := self._issuers.get(asset)) is None:
            raise Problem(409, "no_issuer_key", f"this gateway cannot mint {asset}")
        return pair

    def fee(self, asset: str) -> int:
        """What a payment of an asset costs, in its smallest units."""
        return self._terms.fees.get(asset, 0)

    def with_fees(self, legs: Sequence[Leg]) -> tuple[Leg, ...]:
        """The legs of an order, and for each payer and asset one more with the fees of its payments.

        Raises:
            Problem: 422, it can never be valid.
        """
        if any(leg.payer == leg.payee for leg in legs):
            raise Problem(422, "same_account", "payer and payee are the same")
        legs = (*legs, *self._fee_legs(legs)) if self._terms.fees else tuple(legs)
        if len(legs) > MAX_LEGS:
            raise Problem(422, Code.LIMIT_EXCEEDED, f"at most {MAX_LEGS} legs, fees included")
        if (code := self._terms.breach(legs)) is not Code.OK:
            raise Problem(422, code, "it pays somebody less than the asset's smallest balance")
        return legs

    def _fee_legs(self, legs: Sequence[Leg]) -> list[Leg]:
        due: dict[tuple[bytes, str], int] = {}
        for leg in legs:
            fee = self._terms.fees.get(leg.asset, 0)
            if fee and self._terms.issuers[leg.asset] not in (leg.payer, leg.payee):
                due[leg.payer, leg.asset] = due.get((leg.payer, leg.asset), 0) + fee
        return [Leg(payer, self._terms.issuers[asset], asset, fees) for (payer, asset), fees in due.items()]

    def shortfall(self, legs: Sequence[Leg]) -> Code:
        """Why a payer cannot pay so much by what is verified and under way; OK if all can, or issue the asset."""
        owed: dict[tuple[bytes, str], int] = {}
        for leg in legs:
            owed[leg.payer, leg.asset] = owed.get((leg.payer, leg.asset), 0) + leg.amount
        for (payer, asset), units in owed.items():
            if payer == self._terms.issuers[asset]:
                continue
            left = self._ledger.projection.spendable(payer, asset) - units
            if left < 0:
                return Code.INSUFFICIENT_FUNDS
            if 0 < left < self._terms.smallest_balances.get(asset, 0):
                return Code.BELOW_SMALLEST_BALANCE
        return Code.OK

    async def _record(
        self,
        user_id: str,
        kind: str,
        order: Order,
        transaction_id: bytes,
        encoded: bytes,
        key: Idempotency | None,
        refused: Code = Code.OK,
        also: Also | None = None,
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
            if key is not None and (earlier := claim(connection, user_id, key, transaction_id, created_at)) is not None:
                return earlier, False
            row = transfer_row(tracked, user_id) | {"kind": kind, "created_at": created_at}
            fresh = bool(ADD_TRANSFER.run(connection, row).rowcount)
            put_postings(connection, postings, created_at)
            if refused is not Code.OK:
                self._ledger.outbox.emit_ends(connection, [(transaction_id, Status.REJECTED.value)], created_at)
            if also is not None:
                also(connection, transaction_id, refused)
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
        if fresh:
            self._begin(tracked)
        return Accepted(recorded, tracked if fresh and known is None else None)

    def _begin(self, tracked: Tracked) -> None:
        """A transaction is durable, and new."""
        if tracked.status is Status.REJECTED:
            tracked.shown = Status.REJECTED
            self._ledger.finished[Status.REJECTED] += 1
            self._ledger.outbox.wake()
        elif not tracked.status.is_final:
            self._relay.add(tracked)

    def _block_time(self, payer: bytes) -> int:
        """Of an account's shard, ms."""
        home = self._epochs.require().shards.shard_of(payer)
        return self._ledger.projection.times.get(home, 0)

    def units(self, asset: str, amount: str) -> int:
        """A positive amount in an asset's smallest units. Raises Problem (422)."""
        if asset not in self.assets:
            raise Problem(422, Code.UNKNOWN_ASSET, f"this network has no {asset}")
        try:
            units = parse_amount(amount, self.assets[asset].decimals)
        except ValueError as error:
            raise Problem(422, "invalid_amount", str(error)) from None
        if units == 0:
            raise Problem(422, "invalid_amount", "an amount is positive")
        return units
