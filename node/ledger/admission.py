"""Admission: which transactions a block of this shard may include. What it may not include costs no block space.

Signatures are checked apart.
"""

from collections.abc import Sequence

from node.ledger.rules import Rules
from node.ledger.state import Reader
from node.protocol.codes import Code
from node.protocol.transaction import Action, Leg, Transaction

_OK = Code.OK
_PAY = Action.PAY


def admit(view: Reader, rules: Rules, transaction_id: bytes, transaction: Transaction, time: int) -> Code:
    """Whether a block of this shard on top of ``view``, with block time ``time``, may include the transaction.

    Returns OK or WRONG_NETWORK, WRONG_SHARD, EXPIRED, LIMIT_EXCEEDED (``valid_until`` too far ahead), DUPLICATE, what
    ``breach`` says, or INSUFFICIENT_FUNDS (not ``is_funded``).
    """
    order = transaction.order
    valid_until, legs = order.valid_until, order.legs
    if order.network != rules.network:
        return Code.WRONG_NETWORK
    if rules.shards.shard_of(legs[0].payer) != rules.shard:
        return Code.WRONG_SHARD
    if valid_until < time:
        return Code.EXPIRED
    if valid_until > rules.parameters.latest_valid_until(time):
        return Code.LIMIT_EXCEEDED
    if view.has_seen(transaction_id, valid_until):
        return Code.DUPLICATE
    code = breach(rules, legs)
    if code is _OK and not is_funded(view, rules, legs):
        return Code.INSUFFICIENT_FUNDS
    return code


def breach(rules: Rules, legs: Sequence[Leg]) -> Code:
    """What the genesis asks of the legs themselves, whatever the state: OK, FEE_MISSING or BELOW_SMALLEST_BALANCE.

    What an order pays an asset's issuer must be at least the fee of all its payments of that asset between others.
    """
    if rules.fees:
        due: dict[str, int] = {}
        for leg in legs:
            fee = rules.fees.get(leg.asset)
            if fee is None or leg.action is not _PAY or leg.payer == rules.issuers[leg.asset]:
                continue
            due[leg.asset] = due.get(leg.asset, 0) + (-leg.amount if leg.payee == rules.issuers[leg.asset] else fee)
        if any(amount > 0 for amount in due.values()):
            return Code.FEE_MISSING
    if rules.smallest_balances:
        for leg in legs:
            smallest = rules.smallest_balances.get(leg.asset, 0)
            if leg.amount < smallest and leg.action is _PAY and leg.payee != rules.issuers[leg.asset]:
                return Code.BELOW_SMALLEST_BALANCE
    return _OK


def is_funded(view: Reader, rules: Rules, legs: Sequence[Leg]) -> bool:
    """Whether each payer kept here is an issuer, or holds something: of any asset, available or held."""
    for leg in legs:
        payer, suffix = leg.payer, rules.suffixes.get(leg.asset)
        if suffix is not None:
            balance = view.balance(payer + suffix)
            if balance.available or balance.held:
                continue
        if rules.shards.shard_of(payer) == rules.shard and payer not in rules.issuers.values():
            balances = (view.balance(payer + suffix) for suffix in rules.suffixes.values())
            if not any(balance.available or balance.held for balance in balances):
                return False
    return True
