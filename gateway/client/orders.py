"""What is signed: orders made from the genesis alone, so that no gateway can have another one signed than was asked for."""

import secrets

from node.protocol.address import decode_address, encode_address
from node.protocol.amounts import format_amount, parse_amount
from node.protocol.codes import Code
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_MEMO_BYTES
from node.protocol.terms import Terms
from node.protocol.transaction import Leg, Order

LIFETIME_MS = 120_000
"""For which an order can be taken into a block."""


def order_of(
    genesis: Genesis, network: bytes, payer: bytes, payee: str, asset: str, amount: str, memo: str, now_ms: int
) -> Order:
    """A payment with the fee that it costs. Raises ValueError: no block could take it, and why."""
    terms, to = Terms(genesis), decode_address(payee)
    units = parse_amount(amount, _decimals(genesis, asset))
    if units == 0:
        raise ValueError("an amount is positive")
    if to == payer:
        raise ValueError("payer and payee are the same")
    if len(memo.encode()) > MAX_MEMO_BYTES:
        raise ValueError(f"a memo has at most {MAX_MEMO_BYTES} bytes of UTF-8")
    legs = terms.with_fee(Leg(payer, to, asset, units))
    if terms.breach(legs) is not Code.OK:
        smallest = format_amount(terms.smallest_balances[asset], _decimals(genesis, asset))
        raise ValueError(f"nobody can hold less than {smallest} {asset}")
    return Order(network, legs, memo, now_ms + min(LIFETIME_MS, genesis.parameters.validity_window), secrets.token_bytes(8))


def in_words(order: Order, genesis: Genesis) -> list[str]:
    """What an order does, a line for each leg."""
    issuers = Terms(genesis).issuers
    lines = []
    for number, leg in enumerate(order.legs):
        amount = f"{format_amount(leg.amount, _decimals(genesis, leg.asset))} {leg.asset}"
        is_fee = number > 0 and leg.payee == issuers[leg.asset]
        lines.append(f"{amount} to {encode_address(leg.payee)}{' (fee)' if is_fee else ''}")
    return lines


def cost(order: Order, genesis: Genesis) -> str:
    """All that it takes from its payer, as a decimal string."""
    return format_amount(sum(leg.amount for leg in order.legs), _decimals(genesis, order.legs[0].asset))


def _decimals(genesis: Genesis, asset: str) -> int:
    found = next((one.decimals for one in genesis.assets if one.code == asset), None)
    if found is None:
        raise ValueError(f"this network has no {asset}; it has {', '.join(one.code for one in genesis.assets)}")
    return found
