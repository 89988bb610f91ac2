"""From which of a wallet's addresses a payment is taken. Pure."""

from collections.abc import Sequence

MOST = 7
"""Addresses that one payment is taken from: with a fee for each that is 14 legs, of 16."""


def gather(purse: Sequence[int], units: int, fee: int = 0, smallest: int = 0) -> list[tuple[int, int]] | None:
    """How to pay ``units`` to one payee from addresses that can spend ``purse``: (index, units) each; None if there is no way.

    From one address, if one has enough, the first such; else from those that have most. Each address that pays pays ``fee``, too.
    Nobody is paid less than ``smallest``, and no address keeps less than that, but nothing.
    """

    def fits(left: int) -> bool:
        return left == 0 or left >= smallest

    if units < smallest:
        return None
    for index, spendable in enumerate(purse):
        if spendable >= units + fee and fits(spendable - units - fee):
            return [(index, units)]
    taken, missing = list[tuple[int, int]](), units
    for index in sorted(range(len(purse)), key=lambda i: -purse[i]):
        available = purse[index] - fee
        if len(taken) == MOST or available < max(1, smallest):
            break
        if available < missing:
            taken.append((index, available))
            missing -= available
        elif missing >= smallest and fits(available - missing):
            return [*taken, (index, missing)]
    return None
