"""Transfers as the API shows them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import and_, exists, select

from gateway.database import Database, Posting, Transfer, Wallet
from gateway.problems import Problem
from gateway.projection import Status, Tracked
from gateway.rows import tracked_row
from gateway.times import iso as iso
from node.protocol.address import encode_address
from node.protocol.amounts import format_amount
from node.protocol.genesis import Asset
from node.protocol.transaction import Leg


def legs_view(legs: Sequence[Leg], assets: Mapping[str, Asset]) -> list[dict[str, str]]:
    """Legs with amounts as decimal strings."""
    return [_leg_view(leg, assets) for leg in legs]


def _leg_view(leg: Leg, assets: Mapping[str, Asset]) -> dict[str, str]:
    decimals = assets[leg.asset].decimals if leg.asset in assets else 0
    amount = format_amount(leg.amount, decimals)
    return {"from": _shown(leg.payer), "to": _shown(leg.payee), "asset": leg.asset, "amount": amount}


_shown = lru_cache(maxsize=1 << 14)(encode_address)


class History:
    """Reads transfers. ``sending``: those that this process sends, of which it knows a little more than their rows say."""

    def __init__(self, database: Database, assets: Mapping[str, Asset], sending: Mapping[bytes, Tracked]) -> None:
        self._database = database
        self._assets = assets
        self._sending = sending

    async def transfer(self, transaction_id: bytes, user_id: str | None) -> dict[str, Any]:
        """A transfer: for ``user_id`` one handed in by, or touching a wallet of, that user; for None any.

        Raises:
            Problem: 404.
        """
        query = select(Transfer.__table__).where(Transfer.transaction_id == transaction_id)
        if user_id is not None:
            mine = and_(Posting.transaction_id == transaction_id, Posting.wallet_id == Wallet.id, Wallet.user_id == user_id)
            query = query.where((Transfer.user_id == user_id) | exists().where(mine))
        row = await self._database.read(lambda c: c.execute(query).mappings().first())
        if row is None:
            raise Problem(404, "transfer_not_found", "there is no such transfer")
        return self.view_of(row)

    def view_of(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """A transfer, of its row."""
        tracked = tracked_row(row)
        if (sent := self._sending.get(tracked.id)) is not None:
            tracked.hint = sent.hint
            if tracked.is_waiting:
                tracked.status = sent.status
        return self.view(tracked)

    def view(self, tracked: Tracked) -> dict[str, Any]:
        """A transfer."""
        legs = legs_view(tracked.legs, self._assets)
        shown_id = tracked.id.hex()
        final = tracked.status.is_final
        return {
            "id": shown_id,
            "transaction_id": shown_id,
            "kind": tracked.kind,
            "status": tracked.status.value,
            "code": (tracked.code.value or None) if final else None,
            "hint": tracked.hint.value or None,
            "epoch": tracked.home.epoch,
            "home_shard": tracked.home.shard,
            "shards": sorted(tracked.shards),
            "height": tracked.height if final or tracked.status is Status.PREPARED else None,
            **legs[0],
            "fee": self._fee(tracked.legs),
            "memo": tracked.memo,
            "legs": legs,
            "valid_until": iso(tracked.valid_until),
            "created_at": iso(tracked.created_at),
            "finalized_at": iso(tracked.finalized_at) if final else None,
        }

    def _fee(self, legs: Sequence[Leg]) -> str | None:
        """What the issuer of the first leg's asset gets beside that payment."""
        asset = self._assets.get(legs[0].asset)
        if asset is None or not asset.fee:
            return None
        paid = sum(leg.amount for leg in legs[1:] if leg.asset == asset.code and leg.payee == asset.issuer_address)
        return format_amount(paid, asset.decimals)
