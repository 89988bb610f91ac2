"""Gives back what was paid to an e-mail address and nobody has claimed in time."""

from functools import partial

from gateway.database import now_ms
from gateway.jobs import Jobs
from gateway.payments import Payments
from gateway.projection import Status
from gateway.receiving import RETURN, Receiving, Unclaimed, mark_returned
from node.protocol.transaction import Leg

_AGAIN = 5.0
_AFTER_FAILURE_MS = 3600 * 1000
"""Until a return is made anew that has failed: the payer's account may be frozen, and each attempt is a transfer and an event."""


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
        if paid.status is not Status.COMMITTED or (back := self._back(address, unclaimed)) is None:
            return None
        # Nothing was given back yet, or what was to give it back has failed.
        if returned is not None and (wait := returned.created_at + _AFTER_FAILURE_MS - now_ms()) > 0:
            return wait / 1000
        pair = self._receiving.signer(address, unclaimed.sealed_key)
        mark = partial(mark_returned, address=address)
        await self._payments.pay(unclaimed.payer, "return", (pair,), (back,), "not claimed", also=lambda c, i, _: mark(c, by=i))
        return _AGAIN

    def _back(self, address: bytes, unclaimed: Unclaimed) -> Leg | None:
        """What gives back all that an address holds, less the fee; None when that would be too little to be paid.

        The payment may have been gathered from several addresses. They are of one wallet, so one of them gets all: a part for
        each would cost a fee each, and could be less than the smallest balance.
        """
        paid = next(leg for leg in unclaimed.paid.legs if leg.payee == address)
        units = unclaimed.held.get(paid.asset, 0) - self._payments.fee(paid.asset)
        if units < max(1, self._payments.assets[paid.asset].smallest_balance):
            return None
        return Leg(address, paid.payer, paid.asset, units)
