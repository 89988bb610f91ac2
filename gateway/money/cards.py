"""Card payments: what the gateway asks of a processor.

A processor is another company: it may be slow, away, or answer when nobody listens any more. So every call names the charge or
refund by an id of ours, and is safe to repeat: what has happened under an id is what every later call says of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class ProcessorUnavailable(Exception):
    """The processor did not answer; whether it did what it was asked is not known."""


class ChargeState(StrEnum):
    """Where a charge stands. UNKNOWN: the processor never heard of it. ACTION: the cardholder has to confirm. CAPTURED: the money
    is taken from the card; DISPUTED: and was taken back by the cardholder. CANCELED: no money was taken, and none will be."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    ACTION = "action"
    DECLINED = "declined"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    DISPUTED = "disputed"
    CANCELED = "canceled"


class Card(NamedTuple):
    """In memory only, while a charge is authorized."""

    number: str
    month: int
    year: int
    cvc: str

    def __repr__(self) -> str:
        return "Card(...)"


class Charge(NamedTuple):
    """A charge as the processor has it. ``code``: why it was declined. ``hint``: how to confirm it. Amounts in units."""

    state: ChargeState
    asset: str = ""
    units: int = 0
    refunded: int = 0
    code: str = ""
    hint: str = ""

    @property
    def kept(self) -> int:
        """Units that were taken from the card, and not given or taken back."""
        return self.units - self.refunded if self.state is ChargeState.CAPTURED else 0

    @property
    def lost(self) -> int:
        """Units that the cardholder took back."""
        return self.units - self.refunded if self.state is ChargeState.DISPUTED else 0


class CardProcessor(Protocol):
    """Any call may raise ProcessorUnavailable. Charge ids are given by the caller."""

    async def authorize(self, charge_id: str, card: Card, asset: str, units: int) -> Charge:
        """Reserve the money. Under a known id nothing happens, and the charge is as it is."""

    async def confirm(self, charge_id: str, code: str) -> Charge:
        """Give the cardholder's confirmation of a charge in state ACTION."""

    async def capture(self, charge_id: str) -> Charge:
        """Take the money of an authorized charge."""

    async def cancel(self, charge_id: str) -> Charge:
        """Let go of the money of a charge that is not captured, or make sure that nothing is ever authorized under this id."""

    async def refund(self, refund_id: str, charge_id: str, units: int) -> bool:
        """Give money back on the card. False: it does not take it, now or ever, or more was asked than was taken."""

    async def states(self, charge_ids: Iterable[str]) -> Mapping[str, Charge]:
        """How charges stand; UNKNOWN ones included."""

    async def disputes(self, since: int) -> Sequence[str]:
        """The charges disputed from this time (ms) on."""

    async def statement(self, after: str) -> Sequence[tuple[str, Charge]]:
        """All charges with their ids, page by page: some of those with greater ids, in order; none at the end."""


def brand_of(number: str) -> str:
    """Whose card it is, by the first digits of its number (ISO/IEC 7812)."""
    first, two, four = int(number[:1]), int(number[:2]), int(number[:4])
    if first == 4:
        return "visa"
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return "mastercard"
    return "amex" if two in (34, 37) else "unknown"
