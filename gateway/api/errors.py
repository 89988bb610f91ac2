"""The problems that endpoints answer with, as the API's description tells them."""

from typing import Any

CODES = "x-codes"
"""Where a route's responses keep them until the description is made (gateway/api/description.py)."""


def errors(*said: str) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: problems of its own, as "404 wallet_not_found". Those of all endpoints are added."""
    found: dict[int | str, dict[str, Any]] = {}
    for one in said:
        status, code = one.split()
        found.setdefault(int(status), {CODES: []})[CODES].append(code)
    return found


ORDER = (
    "404 wallet_not_found",
    "409 idempotency_conflict",
    "422 unknown_asset",
    "422 invalid_amount",
    "422 below_smallest_balance",
    "422 fee_missing",
    "422 limit_exceeded",
    "422 same_account",
    "503 not_ready",
    "503 overloaded",
)
"""Of whatever moves money."""
PAYEE = ("409 key_not_held", "422 invalid_address", "422 unknown_recipient", "422 invalid_recipient")
