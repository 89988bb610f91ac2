"""Authorized amounts that nobody has captured yet: no other payment through this gateway can spend them.

The chain knows nothing of them: they bind a wallet only because this gateway alone has its keys. What is reserved is owed, as is
what transfers under way take off, from the database transaction on in which the payment intent's row says so.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from gateway.checkout.states import IntentStatus
from gateway.rows import owed_rows
from gateway.statements import OWE
from node.protocol.transaction import Leg


class Part(NamedTuple):
    """What one address of a wallet is to pay, and the fee of that, units."""

    address: bytes
    units: int
    fee: int


def parts_of(payments: Sequence[Leg], with_fees: Iterable[Leg]) -> list[Part]:
    """What is to be reserved for payments to one payee, which cost what they cost ``with_fees``."""
    owed: dict[bytes, int] = {}
    for leg in with_fees:
        owed[leg.payer] = owed.get(leg.payer, 0) + leg.amount
    return [Part(leg.payer, leg.amount, owed[leg.payer] - leg.amount) for leg in payments]


def take(parts: Iterable[Part], units: int) -> list[Part]:
    """Of reserved parts those that pay ``units``, at most all: in their order, the last one maybe less than it could."""
    taken = []
    for part in parts:
        if units > 0:
            taken.append(part._replace(units=min(part.units, units)))
            units -= part.units
    return taken


def write_parts(parts: Iterable[Part]) -> str:
    """As the database has them."""
    return json.dumps([(part.address.hex(), part.units, part.fee) for part in parts])


def read_parts(text: str) -> list[Part]:
    """What ``write_parts`` wrote."""
    return [Part(bytes.fromhex(address), units, fee) for address, units, fee in json.loads(text)]


def reserve(connection: Connection, before: Row[Any], after: Row[Any]) -> None:
    """Take off what a payment intent's row reserves ``after`` a change, and give back what it did ``before``."""
    owed: dict[tuple[bytes, str], int] = {}
    for intent, sign in ((before, -1), (after, 1)):
        if intent.status == IntentStatus.REQUIRES_CAPTURE:
            for part in read_parts(intent.reserved):
                account = (part.address, intent.asset)
                owed[account] = owed.get(account, 0) + sign * (part.units + part.fee)
    OWE.run_all(connection, owed_rows(owed.items()))
