"""Handing in transactions: the orders that wallets sign."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from gateway.acceptance import Acceptance, Accepted, Also, Before, Offer, Short, shortfall
from gateway.database import Database, now_ms
from gateway.epochs import StoredEpochs
from gateway.idempotency import Idempotency
from gateway.ledger import Ledger
from gateway.problems import Problem
from gateway.projection import Tracked, tracked_order
from gateway.receiving import Receiving
from gateway.relay import Relay
from gateway.rows import known_rows
from gateway.sources import gather
from gateway.statements import FUNDS
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


class Purse(NamedTuple):
    """A wallet's addresses that have something of an asset, its own first, and what each of them can spend."""

    addresses: list[bytes]
    sealed_keys: list[bytes]
    spendable: list[int]


class Payments:
    """What is paid from and to wallets.

    Attributes:
        transfers, purchases: since start.
    """

    def __init__(
        self,
        genesis: Genesis,
        database: Database,
        acceptance: Acceptance,
        wallets: Wallets,
        receiving: Receiving,
        epochs: StoredEpochs,
        ledger: Ledger,
        relay: Relay,
        issuers: dict[str, KeyPair],
        lifetime: int,
    ) -> None:
        self._genesis, self._database, self._acceptance = genesis, database, acceptance
        self._wallets, self._receiving, self._epochs = wallets, receiving, epochs
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
        fresh = await self._receiving.fresh(to, wallet.address) if "@" in to else None
        payee = await self._wallets.address_of(to) if fresh is None else fresh.address
        also = None if fresh is None else fresh.save
        legs = (Leg(wallet.address, payee, asset, units),)
        try:
            # Nearly always the wallet's own address has enough: nothing is read before.
            offer = self._offer(user_id, "transfer", (self._wallets.signer(wallet),), legs, memo, key, also=also, last=False)
            accepted = await self._accept(offer)
        except Short:
            pairs, drawn = await self.draw_all(wallet, legs)
            accepted = await self.pay(user_id, "transfer", pairs, drawn, memo, key, also)
        self.transfers += 1
        return accepted

    async def draw(self, wallet: Row[Any], payee: bytes, asset: str, units: int) -> tuple[Sequence[KeyPair], Sequence[Leg]]:
        """Keys and legs that pay from a wallet: see ``draw_all``."""
        return await self.draw_all(wallet, (Leg(wallet.address, payee, asset, units),))

    async def draw_all(self, wallet: Row[Any], wanted: Sequence[Leg]) -> tuple[Sequence[KeyPair], Sequence[Leg]]:
        """Keys and legs for payments from a wallet, given as legs from its own address: from that, if it has enough, else also
        from those on which it received. What it cannot pay stays as it is. Raises Problem (409) when its owner keeps the key."""
        pair = self._wallets.signer(wallet)
        purses = {asset: await self._purse(wallet, asset) for asset in {leg.asset for leg in wanted}}
        if all(purse.spendable[0] >= self._cost(asset, wanted) for asset, purse in purses.items()):
            return (pair,), wanted
        pairs, legs = {wallet.address: pair}, list[Leg]()
        for leg in wanted:
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

    def _cost(self, asset: str, legs: Sequence[Leg]) -> int:
        """What some payments of an asset take off their payer's account, fees included."""
        return sum(leg.amount + self.fee(asset) for leg in legs if leg.asset == asset)

    async def _purse(self, wallet: Row[Any], asset: str) -> Purse:
        others = await self._receiving.funded(wallet.id, asset)
        addresses = [wallet.address, *(other.address for other in others)]
        sealed_keys = [wallet.sealed_key, *(other.sealed_key for other in others)]
        funds = await self._database.read(lambda c: spendable(c, addresses))
        return Purse(addresses, sealed_keys, [funds.get((address, asset), 0) for address in addresses])

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
        """Take in a transaction signed elsewhere; of one that is here already the time may be over. Raises Problem (422) with the
        ledger's code."""
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
        if not await self._database.read(lambda c: known_rows(c, [order.id])):
            self._check_new(order)
        tracked = tracked_order(order, order.id, encoded, self._epochs.require(), own=True)
        tracked.kind, tracked.created_at = "raw", now_ms()
        return await self._accept(Offer(tracked, user_id, encoded, key=key))

    def _check_new(self, order: Order) -> None:
        """Raises Problem (422) with the ledger's code."""
        block_time = self._ledger.time_of(order.legs[0].payer)
        if order.valid_until < block_time:
            raise Problem(422, Code.EXPIRED, "valid_until has passed")
        if any(order.valid_until < self._ledger.time_of(address) for leg in order.legs for address in (leg.payer, leg.payee)):
            raise Problem(503, "not_ready", "its home shard is not followed as far as others that it touches", retry_after=5)
        if (code := self._terms.breach(order.legs)) is not Code.OK:
            raise Problem(422, code, "it pays too little of a fee, or somebody less than the smallest balance")
        if order.valid_until > self._genesis.parameters.latest_valid_until(max(block_time, now_ms())):
            raise Problem(422, Code.LIMIT_EXCEEDED, "valid_until is too far ahead")

    async def pay(
        self,
        user_id: str,
        kind: str,
        payers: Sequence[KeyPair],
        legs: Sequence[Leg],
        memo: str = "",
        key: Idempotency | None = None,
        also: Also | None = None,
        before: Before | None = None,
    ) -> Accepted:
        """Sign an order of ``legs`` and the fees they cost with its payers' keys, and accept it: all of it happens, or nothing.

        It is rejected at once, and not signed, when a payer has too little. With a ``key`` used before nothing new happens. What
        ``before`` or ``also`` raise undoes everything.

        Raises:
            Problem: 422, it can never be valid; 503, too much is under way.
        """
        return await self._accept(self._offer(user_id, kind, payers, legs, memo, key, also=also, before=before))

    def _offer(
        self,
        user_id: str,
        kind: str,
        payers: Sequence[KeyPair],
        legs: Sequence[Leg],
        memo: str,
        key: Idempotency | None,
        *,
        also: Also | None = None,
        before: Before | None = None,
        last: bool = True,
    ) -> Offer:
        """A signed order. Its signatures are thrown away if it cannot be paid."""
        legs, now, document = self.with_fees(legs), now_ms(), self._epochs.require()
        # A gateway whose clock is slow still signs for long enough.
        valid_until = min(max(now, self._ledger.time_of(legs[0].payer)) + self._lifetime, MAX_TIME)
        order = Order(document.network_id, legs, memo, valid_until, secrets.token_bytes(8))
        order_id, by_address = order.id, {address_of(pair.public): pair for pair in payers}
        pairs = [by_address[payer] for payer in order.payers]

        def transaction(sign: Callable[[KeyPair], bytes]) -> bytes:
            return encode(Transaction(order, tuple([Witness(pair.public, sign(pair)) for pair in pairs])))

        signed = transaction(lambda pair: pair.sign(order_id))
        tracked = tracked_order(order, order_id, signed, document, own=True)
        tracked.kind, tracked.created_at = kind, now
        return Offer(tracked, user_id, signed, lambda: transaction(_no_signature), key, last, before, also)

    async def _accept(self, offer: Offer) -> Accepted:
        """Accept an order durably and send it, or record it as rejected."""
        self._relay.check_room()
        accepted = await self._acceptance.accept(offer)
        if (tracked := accepted.tracked) is not None:
            self._begin(tracked)
        return accepted

    def _begin(self, tracked: Tracked) -> None:
        """A transaction is durable, and new."""
        if tracked.status.is_final:
            self._ledger.rejected(tracked)
        else:
            if tracked.kind != "raw":  # that may be in a block already, and have moved on since it was written
                self._ledger.remember(tracked)
            self._relay.add(tracked)

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

    def shortfall(self, connection: Connection, legs: Sequence[Leg]) -> Code:
        """Why a payer cannot pay so much by what is verified, under way and reserved; OK if all can, or issue the asset."""
        owed: dict[tuple[bytes, str], int] = {}
        for leg in legs:
            owed[leg.payer, leg.asset] = owed.get((leg.payer, leg.asset), 0) + leg.amount
        return shortfall(self._terms, owed, spendable(connection, {leg.payer for leg in legs}))

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


def spendable(connection: Connection, addresses: Iterable[bytes]) -> dict[tuple[bytes, str], int]:
    """What addresses can spend, by asset: their verified balances less what is owed. May be negative."""
    return {(bytes(address), asset): units for address, asset, units in FUNDS.run(connection, list(addresses))}


def _no_signature(_: KeyPair) -> bytes:
    return bytes(64)
