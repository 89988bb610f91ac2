"""Admission: which transactions a block of this shard may include. What it may not include costs no block space.

Signatures are checked apart.
"""

from collections.abc import Sequence

from node.ledger.reader import Reader
from node.ledger.rules import Rules
from node.protocol.codes import Code
from node.protocol.transaction import Leg, Transaction

_OK = Code.OK


def admit(view: Reader, rules: Rules, transaction_id: bytes, transaction: Transaction, time: int) -> Code:
    """Whether a block of this shard on top of ``view``, with block time ``time``, may include the transaction.

    Returns what ``screen`` says, or INSUFFICIENT_FUNDS (not ``is_funded``).
    """
    code = screen(view, rules, transaction_id, transaction, time)
    return Code.INSUFFICIENT_FUNDS if code is _OK and not is_funded(view, rules, transaction.order.legs) else code


def screen(view: Reader, rules: Rules, transaction_id: bytes, transaction: Transaction, time: int) -> Code:
    """``admit``, but for the payers' funds. Returns what ``suits`` says, or DUPLICATE."""
    code = suits(rules, transaction, time)
    return Code.DUPLICATE if code is _OK and view.has_seen(transaction_id, transaction.order.valid_until) else code


def suits(rules: Rules, transaction: Transaction, time: int) -> Code:
    """What can be said of a transaction without the state.

    Returns OK or WRONG_NETWORK, WRONG_SHARD, EXPIRED, LIMIT_EXCEEDED (``valid_until`` too far ahead), or what ``Terms.breach``
    says.
    """
    order = transaction.order
    valid_until, legs = order.valid_until, order.legs
    if order.network != rules.network:
        return Code.WRONG_NETWORK
    if not rules.first <= legs[0].payer <= rules.last:
        return Code.WRONG_SHARD
    if valid_until < time:
        return Code.EXPIRED
    if valid_until > rules.parameters.latest_valid_until(time):
        return Code.LIMIT_EXCEEDED
    return _OK if rules.terms.are_none else rules.terms.breach(legs)


def is_funded(view: Reader, rules: Rules, legs: Sequence[Leg]) -> bool:
    """Whether each payer kept here is an issuer, or holds something: of any asset, available or held."""
    for leg in legs:
        payer, suffix = leg.payer, rules.suffixes.get(leg.asset)
        if suffix is not None:
            balance = view.balance(payer + suffix)
            if balance.available or balance.held:
                continue
        if rules.first <= payer <= rules.last and payer not in rules.issuers.values():
            balances = (view.balance(payer + suffix) for suffix in rules.suffixes.values())
            if not any(balance.available or balance.held for balance in balances):
                return False
    return True
