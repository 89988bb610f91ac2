"""Transactions: one or more legs, all or nothing, whatever shards they touch.

An asset's issuer account is the boundary of its supply (as on Stellar): what it pays is minted, what it is paid is burned,
and it holds no balance. The issuer may also freeze and unfreeze an account's balance of the asset, with a leg of its own.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from node.protocol.address import Address, address_of
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.crypto import KeyPair, PublicKey, Signature, domain_prefix, verify
from node.protocol.limits import MAX_AMOUNT, MAX_ASSET_CODE, MAX_LEGS, MAX_MEMO_BYTES, MAX_TRANSACTION_BYTES

NetworkId = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Names one network: the start of a hash over its genesis and its first epoch document. Two documents make two networks, and no
transaction is valid in both; 16 bytes, so that nobody finds two with one id."""
_CODE = r"^[A-Z0-9]+\Z"
AssetCode = Annotated[str, Meta(min_length=1, max_length=MAX_ASSET_CODE, pattern=_CODE)]
Amount = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]
"""Time since the Unix epoch, or a span of it, in milliseconds."""


class Action(IntEnum):
    """What a leg does. FREEZE and UNFREEZE are the issuer's (as payer), on the payee's balance, with amount 0."""

    PAY = 0
    FREEZE = 1
    UNFREEZE = 2


_PAY = Action.PAY
_matches_code = lru_cache(maxsize=1 << 10)(re.compile(_CODE).match)
_TRANSACTION = domain_prefix("transaction")


class Leg(Struct, array_like=True, frozen=True, gc=False):
    """``amount`` units of ``asset`` from ``payer`` to ``payee``."""

    payer: Address
    payee: Address
    asset: Annotated[str, Meta(min_length=1, max_length=MAX_ASSET_CODE)]
    """``decode_transaction`` checks its letters: a pattern here would take half of the time of decoding."""
    amount: Amount
    action: Action = Action.PAY


class Witness(Struct, array_like=True, frozen=True, gc=False):
    """A payer's public key and signature over the transaction id."""

    public_key: PublicKey
    signature: Signature


class Order(Struct, array_like=True, frozen=True, gc=False):
    """What is signed. ``memo``: UTF-8, at most 140 bytes; ``valid_until``: block time; ``salt`` makes equal orders differ."""

    network: NetworkId
    legs: Annotated[tuple[Leg, ...], Meta(min_length=1, max_length=MAX_LEGS)]
    memo: Annotated[str, Meta(max_length=MAX_MEMO_BYTES)]
    valid_until: Milliseconds
    salt: Annotated[bytes, Meta(min_length=8, max_length=8)]

    @property
    def id(self) -> bytes:
        """The transaction id: 32 bytes, and what every payer signs."""
        return sha256(_TRANSACTION + encode(self)).digest()

    @property
    def payers(self) -> tuple[bytes, ...]:
        """The distinct payers, in order of first appearance. The first one's shard is the home shard."""
        legs = self.legs
        return (legs[0].payer,) if len(legs) == 1 else tuple(dict.fromkeys([leg.payer for leg in legs]))

    def sign(self, keys: Sequence[KeyPair]) -> "Transaction":
        """Sign with one key per distinct payer, in any order. Raises ValueError when one is missing."""
        by_address = {address_of(key.public): key for key in keys}
        if missing := [payer for payer in self.payers if payer not in by_address]:
            raise ValueError(f"no key for {len(missing)} of the payers")
        signed = self.id
        witnesses = (Witness(by_address[p].public, by_address[p].sign(signed)) for p in self.payers)
        return Transaction(self, tuple(witnesses))


class Transaction(Struct, array_like=True, frozen=True, gc=False):
    """An order and one witness per distinct payer, in the order of ``Order.payers``."""

    order: Order
    witnesses: Annotated[tuple[Witness, ...], Meta(min_length=1, max_length=MAX_LEGS)]

    @property
    def id(self) -> bytes:
        return self.order.id

    def has_valid_signatures(self) -> bool:
        """Whether every payer's witness signs this order."""
        signed = self.order.id
        return all(verify(witness.public_key, signed, witness.signature) for witness in self.witnesses)


def decode_transaction(data: bytes) -> Transaction:
    """Decode and check every static rule; signatures are checked apart, in batches.

    Raises:
        DecodeError: not canonical, too large, or against a rule.
    """
    transaction = decode(Transaction, data, MAX_TRANSACTION_BYTES)
    order = transaction.order
    if len(order.memo) * 4 > MAX_MEMO_BYTES and len(order.memo.encode()) > MAX_MEMO_BYTES:
        raise DecodeError(f"memo longer than {MAX_MEMO_BYTES} bytes")
    for leg in order.legs:
        if not _matches_code(leg.asset):
            raise DecodeError("no asset has such a code")
        if leg.payer == leg.payee:
            raise DecodeError("payer and payee are the same")
        if (leg.amount == 0) == (leg.action is _PAY):
            raise DecodeError("a payment has a positive amount, any other leg none")
    if order.payers != tuple([address_of(witness.public_key) for witness in transaction.witnesses]):
        raise DecodeError("the witnesses are not the payers', one each")
    return transaction
