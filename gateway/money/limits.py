"""How much may be bought, and be had of the faucet: pure."""

from typing import NamedTuple

from gateway.problems import Problem
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset

DAY_MS = 24 * 3600 * 1000
MAX_PURCHASES = 200
"""Of one user in a day, whatever became of them."""
MAX_DECLINES = 10
"""Of one user in a day: who tries out cards that are not his gets no further."""


MAX_PAYOUTS = 200
"""Of one user in a day."""
MAX_REFUNDS = 50
"""Of one purchase."""


class Limits(NamedTuple):
    """In whole units of any asset; per user and asset where they are per day, of any 24 hours."""

    purchase: int
    purchases_per_day: int
    faucet_per_day: int


class Today(NamedTuple):
    """A user's purchases of the last 24 hours: how many, how many of them declined or failed, and the units of the others."""

    tried: int
    declined: int
    units: int


def check_least(asset: Asset, units: int) -> None:
    """Raises Problem (422): coins that go out may have to come back, and nobody can be paid less than the smallest balance."""
    if units < asset.smallest_balance:
        raise Problem(422, "amount_too_small", f"at least {_shown(asset, asset.smallest_balance)}")


def check_purchase(asset: Asset, units: int, today: Today, limits: Limits) -> None:
    """Raises Problem (422 or 429) when so much cannot be bought now."""
    check_least(asset, units)
    if units > (most := limits.purchase * 10**asset.decimals):
        raise Problem(422, "amount_too_large", f"at most {_shown(asset, most)} at once")
    if today.tried >= MAX_PURCHASES:
        raise Problem(429, "purchase_limit", f"at most {MAX_PURCHASES} purchases in 24 hours")
    if today.declined >= MAX_DECLINES:
        raise Problem(429, "too_many_declined", f"{MAX_DECLINES} purchases were declined in 24 hours: no more are tried")
    if today.units + units > (most := limits.purchases_per_day * 10**asset.decimals):
        raise Problem(429, "purchase_limit", f"at most {_shown(asset, most)} in 24 hours; {_left(asset, most, today.units)} left")


def is_beyond(asset: Asset, units: int, today: Today, limits: Limits) -> bool:
    """Whether a purchase is more than these limits allow at once or in a day."""
    one = int(10**asset.decimals)
    return units > limits.purchase * one or today.units + units > limits.purchases_per_day * one


def check_faucet(asset: Asset, units: int, given: int, limits: Limits) -> None:
    """``given``: to this user in the last 24 hours. Raises Problem (429)."""
    if given + units > (most := limits.faucet_per_day * 10**asset.decimals):
        raise Problem(429, "faucet_limit", f"at most {_shown(asset, most)} in 24 hours; {_left(asset, most, given)} left")


def _left(asset: Asset, most: int, used: int) -> str:
    return _shown(asset, max(0, most - used))


def _shown(asset: Asset, units: int) -> str:
    return f"{format_amount(units, asset.decimals)} {asset.code}"
