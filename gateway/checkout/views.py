"""Payment intents and exchanges as the API shows them, and to whom it shows what. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from gateway.times import iso
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset

View = dict[str, Any]


class Views:
    """``public_url``: where the page of this gateway is, for the links that buyers get."""

    def __init__(self, assets: Mapping[str, Asset], public_url: str) -> None:
        self._assets, self._public_url = assets, public_url.rstrip("/")

    def checkout_url(self, intent_id: str) -> str:
        """The page on which a payment intent is paid."""
        return f"{self._public_url}/#/pay/{intent_id}"

    def intent(self, row: Row[Any], user_id: str) -> View:
        """A payment intent. Reference and metadata are the shop's; which transfer pays it, the shop's and the payer's."""
        shop = user_id == row.user_id
        amounts = {name: self._amount(row.asset, getattr(row, name)) for name in ("amount", "amount_captured", "amount_refunded")}
        transfer = row.transfer_id if shop or user_id == row.payer_id else None
        return {
            "id": row.id,
            "status": row.status,
            "code": row.code or None,
            "asset": row.asset,
            **amounts,
            "wallet_id": row.wallet_id,
            "merchant": row.merchant or "",
            "description": row.description,
            "reference": row.reference if shop else None,
            "metadata": json.loads(row.labels) if shop else None,
            "success_url": row.success_url,
            "cancel_url": row.cancel_url,
            "capture_method": row.capture_method,
            "transfer_id": transfer.hex() if transfer is not None else None,
            "checkout_url": self.checkout_url(row.id),
            "expires_at": iso(row.expires_at),
            "capture_before": iso(row.capture_before),
            "created_at": iso(row.created_at),
        }

    def exchange(self, row: Row[Any], user_id: str) -> View:
        """An exchange; which transfer settles it is shown to the two alone."""
        involved = user_id in (row.user_id, row.taker_id) and row.transfer_id is not None
        return {
            "id": row.id,
            "status": row.status,
            "code": row.code or None,
            "give": {"asset": row.give_asset, "amount": self._amount(row.give_asset, row.give_amount)},
            "want": {"asset": row.want_asset, "amount": self._amount(row.want_asset, row.want_amount)},
            "wallet_id": row.wallet_id,
            "mine": user_id == row.user_id,
            "transfer_id": row.transfer_id.hex() if involved else None,
            "expires_at": iso(row.expires_at),
            "created_at": iso(row.created_at),
        }

    def _amount(self, asset: str, units: int) -> str:
        return format_amount(units, self._assets[asset].decimals)
