"""Gives back what was paid to an e-mail address and nobody has claimed in time."""

from functools import partial

from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.projection import Status
from gateway.receiving import RETURN, Receiving, mark_returned
from node.protocol.transaction import Leg

_AGAIN = 5.0


class Returns:
    """The jobs of kind ``RETURN``; their subject is the address that was paid, in hex."""

    def __init__(self, jobs: Jobs, receiving: Receiving, payments: Payments) -> None:
        self._receiving, self._payments = receiving, payments
        jobs.handle(RETURN, self._step)

    async def _step(self, subject: str) -> float | None:
        address = bytes.fromhex(subject)
        if (unclaimed := await self._receiving.unclaimed(address)) is None:
            return None
        paid, returned = unclaimed.paid, unclaimed.returned
        if not paid.status.is_final or (returned is not None and not returned.status.is_final):
            return _AGAIN
        if paid.status is not Status.COMMITTED or (returned is not None and returned.status is Status.COMMITTED):
            return None
        # Nothing was given back yet, or what was to give it back has failed.
        leg = next(leg for leg in paid.legs if leg.payee == address)
        units = leg.amount - self._payments.fee(leg.asset)
        if units <= 0:
            return None
        pair = self._receiving.signer(address, unclaimed.sealed_key)
        back = Leg(address, leg.payer, leg.asset, units)
        mark = partial(mark_returned, address=address)
        await self._payments.pay(unclaimed.payer, "return", (pair,), (back,), "not claimed", also=lambda c, i, _: mark(c, by=i))
        return _AGAIN
