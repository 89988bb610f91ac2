"""Reason codes: why a transaction was refused. Stable, part of the API."""

from enum import StrEnum


class Code(StrEnum):
    """``OK``, or the reason a transaction was refused."""

    OK = ""
    MALFORMED = "malformed"
    """Not the canonical encoding of a transaction, or against one of its static rules."""
    WRONG_NETWORK = "wrong_network"
    WRONG_SHARD = "wrong_shard"
    """Sent to a committee that is not its home shard's."""
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    """Block time is past ``valid_until``, or a participant's answer did not come in time."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """``valid_until`` too far ahead, supply cap, or a queue or mempool that is full."""
    DUPLICATE = "duplicate"
    UNKNOWN_ASSET = "unknown_asset"
    FEE_MISSING = "fee_missing"
    """The order pays the asset's issuer less than the fee of its payments."""
    BELOW_SMALLEST_BALANCE = "below_smallest_balance"
    """It pays, or would leave its payer, less than the asset's smallest balance."""
    INSUFFICIENT_FUNDS = "insufficient_funds"
    ACCOUNT_FROZEN = "account_frozen"
    NOT_ISSUER = "not_issuer"
    """Only an asset's issuer may freeze and unfreeze."""
