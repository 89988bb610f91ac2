"""Amounts: integers of the smallest unit inside, decimal strings at the edge, never a float."""

import re

from node.protocol.limits import MAX_AMOUNT

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.([0-9]{1,18}))?", re.ASCII)


def parse_amount(text: str, decimals: int) -> int:
    """``"12.5"`` with 2 decimals is 1250.

    Raises:
        ValueError: not a plain non-negative decimal, more digits after the point than the asset has, or too large.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError("an amount is a decimal number such as 12.50")
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > decimals:
        raise ValueError(f"at most {decimals} digits after the point")
    value = int(whole + fraction.ljust(decimals, "0"))
    if value > MAX_AMOUNT:
        raise ValueError("amount too large")
    return value


def format_amount(value: int, decimals: int) -> str:
    """1250 with 2 decimals is ``"12.50"``; negative values keep their sign."""
    sign, digits = "-" if value < 0 else "", str(abs(value)).rjust(decimals + 1, "0")
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"
