"""Whether a payment that is to be made later can be valid at all: the checks of a transfer, without making one."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import select

from gateway.checkout.settling import is_id
from gateway.database import Database, Wallet
from gateway.identity.text import email_address
from gateway.payments import Payments
from gateway.problems import Problem
from node.protocol.address import PREFIX, decode_address
from node.protocol.transaction import Leg

SOMEBODY = bytes(20)
"""Stands for the address that a payment to an e-mail address will be given."""


class Checked(NamedTuple):
    """``payee``: in the one form that is kept. ``units``, ``fee``: in the asset's smallest units."""

    payee: str
    units: int
    fee: int


async def addresses(database: Database, named: Iterable[str]) -> dict[str, bytes]:
    """Of the wallets among what is named, by their ids."""
    query = select(Wallet.id, Wallet.address).where(Wallet.id.in_({to for to in named if is_id(to)}))
    return {row.id: row.address for row in await database.read(lambda c: c.execute(query).all())}


def check(payments: Payments, payer: bytes, to: str, asset: str, amount: str, wallets: Mapping[str, bytes]) -> Checked:
    """Check a payment from the address ``payer``. ``wallets``: the addresses of those that are named by their id.

    Raises:
        Problem: 422 with the code of a transfer; ``pointer`` is the part it is about: to, asset or amount.
    """
    part = "amount" if asset in payments.assets else "asset"
    try:
        units, part = payments.units(asset, amount), "to"
        payee, address = _payee(to, wallets)
        if address == payer:
            raise Problem(422, "same_account", "payer and payee are the same")
        part = "amount"
        legs = payments.with_fees((Leg(payer, address, asset, units),))
    except Problem as problem:
        raise Problem(problem.status, problem.code, problem.detail, pointer=part) from None
    return Checked(payee, units, sum(leg.amount for leg in legs[1:]))


def _payee(to: str, wallets: Mapping[str, bytes]) -> tuple[str, bytes]:
    if "@" in to:
        try:
            return email_address(to), SOMEBODY
        except ValueError as error:
            raise Problem(422, "invalid_recipient", str(error)) from None
    if to.lower().startswith(f"{PREFIX}1"):
        try:
            return to, decode_address(to)
        except ValueError as error:
            raise Problem(422, "invalid_address", str(error)) from None
    if (address := wallets.get(to)) is None:
        raise Problem(422, "unknown_recipient", "no wallet has this id")
    return to, address
