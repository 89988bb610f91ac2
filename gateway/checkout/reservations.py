"""Authorized amounts that nobody has captured yet: no other payment through this gateway can spend them.

The chain knows nothing of them: they bind a wallet only because this gateway alone has its keys. The database's rows of payment
intents say which there are; here they are taken off what the projection lets the wallets' addresses spend.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from gateway.checkout.states import IntentStatus
from gateway.projection import Projection
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


class Reservations:
    """One for each name: a payment intent's id, or that of an attempt to authorize it."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._held: dict[str, tuple[str, list[Part]]] = {}

    def put(self, name: str, asset: str, parts: list[Part]) -> None:
        """Reserve; what ``name`` had reserved before is free."""
        self.lift(name)
        self._held[name] = asset, parts
        for part in parts:
            self._projection.owe((part.address, asset), part.units + part.fee)

    def lift(self, name: str) -> None:
        """Free what ``name`` has reserved, if anything."""
        asset, parts = self._held.pop(name, ("", []))
        for part in parts:
            self._projection.owe((part.address, asset), -part.units - part.fee)

    def follow(self, intent: Row[Any]) -> None:
        """Reserve what the row of a payment intent says, or free it. To be called with each new state, in their order."""
        if intent.status == IntentStatus.REQUIRES_CAPTURE:
            self.put(intent.id, intent.asset, read_parts(intent.reserved))
        else:
            self.lift(intent.id)
