"""What the shards' certified blocks prove: heights, throughput, and the whole supply of every asset. Nobody's mere word.

Blocks are taken as they come. The dashboard asks nobody for those that the broker lost, it counts them: it shows what goes on
now, and an hour it did not see is no concern of its charts.
"""

from collections import OrderedDict, deque
from typing import Any

from node.client.decisions import Contradiction, Decisions
from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal, Header, Outcome, Totals, net
from node.protocol.certificate import CertifiedBlock
from node.protocol.codec import DecodeError, decode
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import Genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES

LATEST_BLOCKS = 30
MAX_CROSS_SHARD = 200_000
"""Cross-shard transactions remembered, so that each is counted once though it settles in several shards."""
MAX_DISORDER = 64
"""A block may arrive this many heights late and still be counted."""


class Shard:
    """One shard as its newest certified block shows it. ``missed``: heights the broker lost on the way to us."""

    def __init__(self, header: Header, totals: Totals) -> None:
        self.header = header
        self.totals = totals
        self.missed = 0
        self.seen = {header.height}

    def is_new(self, height: int) -> bool:
        return height not in self.seen and height > self.header.height - MAX_DISORDER

    def add(self, header: Header, totals: Totals) -> None:
        if header.height > self.header.height:
            self.missed += header.height - self.header.height - 1
            self.header, self.totals = header, totals
            self.seen = {height for height in self.seen if height > header.height - MAX_DISORDER}
        else:
            self.missed = max(0, self.missed - 1)
        self.seen.add(header.height)


class Chain:
    """The shards of this epoch, and counts since the dashboard started of transactions that became final.

    A cross-shard transaction is one whose home shard first wrote PREPARED; with that block lost it counts as intra-shard in
    each shard that settles it.
    """

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.shards: dict[int, Shard] = {}
        self.latest: deque[dict[str, Any]] = deque(maxlen=LATEST_BLOCKS)
        self.intra = 0
        self.cross = 0
        self.refused = 0
        self.by_shard: dict[int, int] = {}
        self.contradictions = 0
        """Transactions that a home shard decided both ways."""
        self._decisions: Decisions | None = None
        self._cross_settled: OrderedDict[bytes, bool] = OrderedDict()
        self._overdrawn: dict[tuple[str, int, int], int] = {}
        self._last_supply: list[dict[str, Any]] = []

    def begin(self, document: EpochDocument) -> None:
        """An epoch has begun. What its chains show will be seen with their blocks."""
        self.shards.clear()
        self._overdrawn.clear()
        self._decisions = Decisions(document.electorates)
        self.by_shard = {shard: count for shard, count in self.by_shard.items() if shard in document.electorates}

    def add(self, shard: int, body: bytes, document: EpochDocument) -> list[Contradiction]:
        """Take in a block from a shard's topic. One seen before changes nothing. Returns what it shows of a home shard that
        decides a transaction both ways.

        Raises:
            DecodeError: not a certified block of this shard, or its certificate or effects do not hold.
        """
        certified = decode(CertifiedBlock, body, MAX_BROKER_BODY_BYTES)
        header, totals = certified.block.header, certified.effects.totals
        known = self.shards.get(shard)
        if known is not None and header.shard == shard and not known.is_new(header.height):
            return []
        electorate = document.electorates.get(shard)
        if electorate is None or not certified.is_valid(electorate):
            raise DecodeError("not certified by the shard's committee")
        if known is None:
            self.shards[shard] = Shard(header, totals)
        else:
            known.add(header, totals)
        self._count(shard, certified)
        self._show(certified, document)
        if self._decisions is None:
            self._decisions = Decisions(document.electorates)
        found = self._decisions.read(certified)
        self.contradictions += len(found)
        return found

    def _count(self, shard: int, certified: CertifiedBlock) -> None:
        settled_cross = self._cross_settled
        before = self.intra + self.cross
        for receipt in certified.effects.receipts:
            if receipt.outcome == Outcome.PREPARED:
                settled_cross.setdefault(receipt.transaction_id, False)
                continue
            settled = settled_cross.get(receipt.transaction_id)
            if settled:
                continue  # another shard it touched
            if settled is False:
                settled_cross[receipt.transaction_id] = True
            if receipt.outcome != Outcome.COMMITTED:
                self.refused += 1
            elif settled is None:
                self.intra += 1
            else:
                self.cross += 1
        while len(settled_cross) > MAX_CROSS_SHARD:
            settled_cross.popitem(last=False)
        self.by_shard[shard] = self.by_shard.get(shard, 0) + self.intra + self.cross - before

    def _show(self, certified: CertifiedBlock, document: EpochDocument) -> None:
        header, outcomes = certified.block.header, [receipt.outcome for receipt in certified.effects.receipts]
        members = next(committee.members for committee in document.committees if committee.shard == header.shard)
        self.latest.append(
            {
                "epoch": document.number,
                "shard": header.shard,
                "height": header.height,
                "view": header.view,
                "transactions": len(certified.block.transactions),
                "bundles": len(certified.block.bundles),
                "prepared": outcomes.count(Outcome.PREPARED),
                "committed": outcomes.count(Outcome.COMMITTED),
                "refused": outcomes.count(Outcome.REJECTED) + outcomes.count(Outcome.EXPIRED),
                "proposer": members[header.proposer].name if header.proposer < len(members) else "?",
                "time": header.time,
                "hash": header.hash.hex()[:16],
            }
        )

    def supply(self, document: EpochDocument | None) -> list[dict[str, Any]]:
        """Per asset, summed over the shards: amounts as decimal strings, and ``conserved``: yes, no, or unknown.

        The shards' newest blocks are no single instant: a unit may be seen to arrive before it is seen to leave. That is
        ``unknown`` until the sender's chain has had time to show it, and ``no`` after.
        """
        complete = document is not None and all(c.shard in self.shards for c in document.committees)
        if not complete and self._last_supply:  # an epoch begins: what was there is there
            return [{**row, "conserved": "unknown"} for row in self._last_supply]
        supply = [self._supply_of(asset.code, asset.decimals, complete) for asset in self.genesis.assets]
        self._last_supply = supply if complete else []
        return supply

    def _supply_of(self, code: str, decimals: int, complete: bool) -> dict[str, Any]:
        rows = {n: row for n, s in self.shards.items() for row in s.totals.assets if row.asset == code}
        verdict = "yes" if complete else "unknown"
        if verdict == "yes" and (early := self._arrived_early(code, rows)):
            verdict = "no" if early == "too long" else "unknown"
        if not all(row.is_balanced for row in rows.values()):
            verdict = "no"
        peers = [peer for row in rows.values() for peer in row.peers]
        in_flight = net(sum(peer.exported for peer in peers), sum(peer.imported for peer in peers))
        sums = {name: sum(getattr(row, name) for row in rows.values()) for name in ("available", "held", "issued")}
        amounts = {name: format_amount(value, decimals) for name, value in {**sums, "in_flight": in_flight}.items()}
        return {"asset": code, "conserved": verdict, **amounts}

    def _arrived_early(self, code: str, rows: dict[int, AssetTotal]) -> str:
        """Whether some shard took in more than its peer is seen to have sent: "", "briefly" or "too long"."""
        exported = {(n, peer.shard): peer.exported for n, row in rows.items() for peer in row.peers}
        imported = {(peer.shard, n): peer.imported for n, row in rows.items() for peer in row.peers}
        worst = ""
        for (sender, receiver), amount in imported.items():
            key = (code, sender, receiver)
            if net(exported.get((sender, receiver), 0), amount) >= 0:
                self._overdrawn.pop(key, None)
                continue
            since = self._overdrawn.setdefault(key, self.shards[receiver].header.time)
            late = self.shards[sender].header.time - since if sender in self.shards else 0
            worst = "too long" if late > 2 * self.genesis.parameters.clock_skew else worst or "briefly"
        return worst
