"""Terms: what a genesis asks of the payments of its assets, whatever the state: fees and smallest balances."""

from collections.abc import Sequence

from node.protocol.codes import Code
from node.protocol.genesis import Genesis
from node.protocol.transaction import Action, Leg

_PAY = Action.PAY


class Terms:
    """All by asset code.

    Attributes:
        issuers: each asset's issuer address, in the order of the codes.
        fees, smallest_balances: of the assets that have one. are_none: no asset has either.
    """

    __slots__ = ("are_none", "fees", "issuers", "smallest_balances")

    def __init__(self, genesis: Genesis) -> None:
        assets = sorted(genesis.assets, key=lambda asset: asset.code)
        self.issuers: dict[str, bytes] = {asset.code: asset.issuer_address for asset in assets}
        self.fees: dict[str, int] = {asset.code: asset.fee for asset in assets if asset.fee}
        self.smallest_balances: dict[str, int] = {a.code: a.smallest_balance for a in assets if a.smallest_balance}
        self.are_none = not (self.fees or self.smallest_balances)

    def breach(self, legs: Sequence[Leg]) -> Code:
        """OK, FEE_MISSING or BELOW_SMALLEST_BALANCE.

        What an order pays an asset's issuer is at least the fee of all its payments of that asset between others.
        """
        if self.fees:
            due: dict[str, int] = {}
            for leg in legs:
                fee = self.fees.get(leg.asset)
                if fee is not None and leg.action is _PAY and leg.payer != self.issuers[leg.asset]:
                    due[leg.asset] = due.get(leg.asset, 0) + (fee if leg.payee != self.issuers[leg.asset] else -leg.amount)
            if any(amount > 0 for amount in due.values()):
                return Code.FEE_MISSING
        if self.smallest_balances:
            for leg in legs:
                smallest = self.smallest_balances.get(leg.asset, 0)
                if leg.amount < smallest and leg.action is _PAY and leg.payee != self.issuers[leg.asset]:
                    return Code.BELOW_SMALLEST_BALANCE
        return Code.OK

    def with_fee(self, leg: Leg) -> tuple[Leg, ...]:
        """A payment and, if it costs one, its fee, which its payer pays."""
        issuer = self.issuers[leg.asset]
        fee = self.fees.get(leg.asset, 0)
        return (leg, Leg(leg.payer, issuer, leg.asset, fee)) if fee and issuer not in (leg.payer, leg.payee) else (leg,)
