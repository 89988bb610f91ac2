"""The second implementation of how an epoch begins, from ``docs/epochs.md``, section 5: chains that follow on closed ones."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.vectors.assignment_reference import document_hash
from tests.vectors.change_reference import ChangingLedger
from tests.vectors.reference import LIMITS, Network, boundary, digest, pair, replay_key, root, tree

Credits = dict[tuple[int, str], int]
"""Units by shard and asset."""
TIME = 6
"""In a header."""


def network_of(before: Network, document: list[Any]) -> Network:
    """The same network in the epoch of a document."""
    return before._replace(ranges=sorted((first, shard) for shard, first, _ in document[5]))


class FollowingLedger(ChangingLedger):
    """It follows on ``origins``, whose closing blocks have the headers ``closings``."""

    def __init__(
        self,
        shard: int,
        document: list[Any],
        origins: Sequence[ChangingLedger],
        closings: Sequence[list[Any]],
        given: Mapping[tuple[int, str], int],
    ) -> None:
        network, coordinator = network_of(origins[0].network, document), origins[0].coordinator
        super().__init__(shard, network, document, coordinator, max(header[TIME] for header in closings))
        parts = [self.hash, *(digest("block", header) for header in closings)]
        self.parent = digest("opening", *parts)
        for origin in origins:
            self._take_over(origin)
        for asset, issuer in network.issuers.items():
            self._note_issued(asset, issuer, origins)
        for (teller, asset), units in given.items():
            if teller in self.others and units:
                self.rows[pair(shard, teller) + asset.encode() + b"g"] = units
        self._remember(origins)
        self.state = self.certified = digest("opening state", *parts)
        self.root = tree(self.rows)

    def gap(self, height: int, written: int) -> int:
        """Soon at first, so that the opening can be handed over: block 1, and block 17 at the latest."""
        if height > 1:
            return super().gap(height, written)
        interval = min(16, self.network.parameters["checkpoint_interval"]) if height else 1
        return int(interval * max(1, -(-written // (interval * self.network.limits["hashed"]))))

    @property
    def header(self) -> list[Any]:
        """That of height 0."""
        nothing, zero = root([]), bytes(32)
        roots = [root([nothing] * 3), nothing, nothing, zero, digest("totals", self.totals()), digest("change", self.change)]
        return [self.hash, self.shard, 0, 0, self.parent, zero, self.opened, 0, *roots, self.state, bytes(8)]

    def _take_over(self, origin: ChangingLedger) -> None:
        """Accounts of the range, with what they had held, and answered prepares."""
        for key, row in origin.rows.items():
            if not key[-1:].islower():
                address = key[:20]
                if origin.network.shard_of(address) == origin.shard and self.network.shard_of(address) == self.shard:
                    self.rows[key] = [row[0] + row[1], 0, row[2]]
            elif key[-1:] == b"a":
                self.rows[key] = max(row, self.rows.get(key, 0))

    def _note_issued(self, asset: str, issuer: bytes, origins: Sequence[ChangingLedger]) -> None:
        code, most, tallies = asset.encode(), LIMITS["amount"], self.network.limits["tallies"]
        accounts = sorted(key for key in self.rows if key[20:] == code)
        there = sum(self.rows[key][0] for key in accounts)
        for key in reversed(accounts):
            less = min(self.rows[key][0], max(0, there - most))
            self.rows[key][0] -= less
            there -= less
            if not any(self.rows[key]):
                del self.rows[key]
        issued = [0, 0]
        for origin in origins:
            if origin.network.shard_of(issuer) == origin.shard and self.network.shard_of(issuer) == self.shard:
                issued = origin.rows.get(boundary(0, asset), [0, 0])[:2]
        if any(issued):
            self.rows[boundary(0, asset)] = [*issued, 0, 0]
        if carried := (there - issued[0] + issued[1]) % tallies:
            self.rows[bytes(20) + code + b"o"] = carried

    def _remember(self, origins: Iterable[ChangingLedger]) -> None:
        """The replay set, what is over left out."""
        slots, part = defaultdict[int, list[bytes]](list), self.network.limits["part"]
        for transaction_id, slot in {one: slot for origin in origins for one, slot in origin.seen.items()}.items():
            if slot >= self.opened // 1024:
                slots[slot].append(transaction_id)
                self.seen[transaction_id] = slot
        for slot, ids in slots.items():
            ids.sort()
            for number, at in enumerate(range(0, len(ids), part)):
                chain = bytes(32)
                for one in ids[at : at + part]:
                    chain = digest("replay", chain, one)
                self.rows[replay_key(self.shard, slot, number)] = [len(ids[at : at + part]), chain]


def next_credits(
    before: Mapping[tuple[int, str], int], network: Network, document: list[Any], changes: Mapping[int, list[Any]]
) -> Credits:
    """``network``: in the epoch that ends. ``changes``: its shards' closing ones."""
    found: Credits = defaultdict(int)
    children = defaultdict[int, list[int]](list)
    for _, shard, origins in sorted((row[1], row[0], origins) for row, origins in zip(document[5], document[9], strict=True)):
        for origin in origins:
            children[origin].append(shard)
    assets = {shard: {total[0]: total for total in (change[10] or [[]])[0]} for shard, change in changes.items()}
    for asset, issuer in network.issuers.items():
        for origin, shards in children.items():
            units = before.get((origin, asset), 0)
            for other in changes.keys() - {origin}:
                for peer, exported, imported in assets[other][asset][6] if asset in assets[other] else ():
                    units += exported - imported if peer == origin else 0
            units = network.signed(units)
            if network.shard_of(issuer) == origin:
                units = assets[origin][asset][1] if asset in assets[origin] else 0
            upper = min(dict(changes[origin][9]).get(asset, 0), units) if len(shards) == 2 else 0
            for shard, part in zip(shards, (units - upper, upper), strict=False):
                most = LIMITS["amount"]
                found[shard, asset] = max(-most, min(most, found[shard, asset] + part))
    return {key: units for key, units in found.items() if units}


def open_chains(
    document: list[Any],
    ledgers: Mapping[int, ChangingLedger],
    closings: Mapping[int, list[Any]],
    given: Mapping[tuple[int, str], int],
) -> tuple[dict[int, FollowingLedger], Credits]:
    """The ledgers of an epoch by shard, and its credits. Those of the epoch before are closed, with these headers."""
    assert all(document[3] == document_hash(ledger.document) for ledger in ledgers.values())
    network = next(iter(ledgers.values())).network
    following = next_credits(given, network, document, {shard: ledger.change for shard, ledger in ledgers.items()})
    opened = {
        row[0]: FollowingLedger(
            row[0], document, [ledgers[shard] for shard in origins], [closings[shard] for shard in origins], following
        )
        for row, origins in zip(document[5], document[9], strict=True)
    }
    return opened, following
