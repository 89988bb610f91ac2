"""Payments to bank accounts: what the gateway asks of a bank, and account numbers.

As with card processors, every call names the payment by an id of ours and is safe to repeat.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from stdnum import iban as standard
from stdnum.exceptions import ValidationError

from gateway.problems import Problem


class BankUnavailable(Exception):
    """The bank did not answer; whether it did what it was asked is not known."""


class BankState(StrEnum):
    """Where a credit transfer stands. UNKNOWN: the bank never heard of it. RETURNED: the money came back."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    PAID = "paid"
    RETURNED = "returned"


class BankTransfer(NamedTuple):
    """A credit transfer as the bank has it."""

    state: BankState
    asset: str = ""
    units: int = 0

    @property
    def paid(self) -> int:
        """Units that are gone, or on their way."""
        return self.units if self.state in (BankState.PENDING, BankState.PAID) else 0


class BankRail(Protocol):
    """Any call may raise BankUnavailable. Ids are given by the caller."""

    async def send(self, payout_id: str, iban: str, name: str, asset: str, units: int) -> BankTransfer:
        """Pay to an account. Under a known id nothing happens, and the transfer is as it is."""

    async def states(self, payout_ids: Iterable[str]) -> Mapping[str, BankTransfer]:
        """How transfers stand; UNKNOWN ones included."""

    async def statement(self, after: str) -> Sequence[tuple[str, BankTransfer]]:
        """All transfers with their ids, page by page: some of those with greater ids, in order; none at the end."""


def compact_iban(text: str) -> str:
    """An account number without spaces, in capitals. Raises Problem (422) when it is none (ISO 13616)."""
    try:
        return str(standard.validate(text))
    except ValidationError:
        raise Problem(422, "invalid_iban", "this is not a valid IBAN") from None


def masked_iban(iban: str) -> str:
    """The first and the last four characters."""
    return f"{iban[:4]}{'*' * (len(iban) - 8)}{iban[-4:]}"
