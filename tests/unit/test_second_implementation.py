"""A second implementation of the ledger, from the text of ``docs/protocol.md`` alone, arrives at every root of the chains in
``tests/vectors``. It shares no code with the first, and has no more than those chains need."""

import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from tests.vectors import reference

VECTORS = Path(__file__).parents[1] / "vectors"
EPOCH, CHAINS = (json.loads((VECTORS / name).read_text()) for name in ("epoch.json", "chains.json"))
ISSUERS = {a["code"]: sha256(bytes.fromhex(a["issuer"])).digest()[:20] for a in EPOCH["genesis"]["assets"]}
PARAMETERS = EPOCH["genesis"]["parameters"]
FIRSTS = [bytes.fromhex(committee["first"]) for committee in EPOCH["document"]["fields"]["committees"]]


def digest(domain: str, *values: Any) -> bytes:
    return reference.digest(domain, *(value if isinstance(value, bytes) else msgpack.packb(value) for value in values))


def merkle(items: list[Any]) -> bytes:
    return reference.root(list(map(msgpack.packb, items)))


def shard_of(address: bytes) -> int:
    return max(shard for shard, first in enumerate(FIRSTS) if first <= address)


class Ledger:
    """The rows of one shard, and what a block does to them."""

    def __init__(self, shard: int) -> None:
        self.shard, self.rows, self.root = shard, dict[bytes, Any](), bytes(32)

    def execute(self, height: int, time: int, bundles: list[Any], transactions: list[bytes]) -> tuple[list[bytes], Any]:
        """The five roots, in the header's order, and the bundles sent. (In these chains nothing is ever due.)"""
        self.time, self.receipts, self.outbox = time, list[Any](), defaultdict[int, list[Any]](list)
        self.touched = set[bytes]()
        for source, destination, number, records in bundles:
            assert (destination, number) == (self.shard, self.count(source, b"c"))
            for record in records:
                (self.prepare, self.count_vote, self.obey)[record[0] - 1](source, *record[1:])
        for encoded in transactions:
            self.include(encoded)
        sent = [[self.shard, to, self.count(to, b"s"), self.outbox[to]] for to in sorted(self.outbox)]
        written = [(key, self.rows.get(key)) for key in sorted(self.touched)]
        balances = [[k[:20], k[20:].decode(), row or [0, 0, False]] for k, row in written if k[-1:].isupper()]
        records = [[key, row] for key, row in written if not key[-1:].isupper()]
        changes = digest("changes", [balances, digest("records", records)])
        is_checkpoint = height % PARAMETERS["checkpoint_interval"] == 0
        self.root = self.tree() if is_checkpoint else digest("state", self.root, changes)
        return [merkle(self.receipts), merkle(sent), changes, digest("totals", self.totals()), self.root], sent

    def put(self, key: bytes, row: Any) -> None:
        self.touched.add(key)
        self.rows[key] = row
        if row is None or (isinstance(row, list) and not any(row)):
            del self.rows[key]

    def move(self, key: bytes, *by: int) -> None:
        """Add to a balance (available, held) or to a flow (entered, left, entering, leaving)."""
        row = self.rows.get(key, [0, 0, False] if len(by) == 2 else [0, 0, 0, 0])
        self.put(key, [value + more for value, more in zip(row, by, strict=False)] + row[len(by) :])

    def count(self, shard: int, kind: bytes) -> int:
        key = shard.to_bytes(20, "big") + kind
        self.put(key, self.rows.get(key, 0) + 1)
        return int(self.rows[key])

    def tree(self) -> bytes:
        buckets = defaultdict(list)
        for key in sorted(self.rows):
            buckets[key[18] << 8 | key[19]].append([key, self.rows[key]])
        level = {bucket: digest("bucket", rows) for bucket, rows in buckets.items()}
        for _ in range(4):
            level = {i: digest("node", *(level.get(16 * i + j, bytes(32)) for j in range(16))) for i in {i >> 4 for i in level}}
        return level.get(0, bytes(32))

    def totals(self) -> list[Any]:
        found: list[Any] = []
        for asset in sorted(ISSUERS):
            balances = [row for key, row in self.rows.items() if key[20:] == asset.encode()]
            flows = {int.from_bytes(k[:20], "big"): row for k, row in self.rows.items() if k[20:] == asset.encode() + b"f"}
            issued = flows.pop(0, [0, 0])[:2]
            figures = [sum(row[0] for row in balances), sum(row[1] for row in balances), *issued]
            peers = [[boundary - 1, row[1], row[0]] for boundary, row in sorted(flows.items()) if row[0] or row[1]]
            found += [[asset, *figures, peers]] if any(figures) or peers else []
        return [found, sum(key[-1:] in (b"w", b"p") for key in self.rows)]

    def needs(self, legs: list[Any]) -> tuple[dict[bytes, int], dict[bytes, list[int]]]:
        """What accounts here owe, and what enters and leaves over the boundaries."""
        owed, flows = defaultdict[bytes, int](int), defaultdict[bytes, list[int]](lambda: [0, 0])
        for payer, payee, asset, amount, action in legs:
            ends, issuer = (shard_of(payer), shard_of(payee)), ISSUERS[asset]
            if action or self.shard not in ends:
                continue
            boundaries = [(0 if s == self.shard else s + 1).to_bytes(20, "big") + asset.encode() + b"f" for s in ends]
            if ends[0] == self.shard and payer != issuer:
                owed[payer + asset.encode()] += amount
            else:
                flows[boundaries[0]][0] += amount
            if ends[1] != self.shard or payee == issuer:
                flows[boundaries[1]][1] += amount
        return owed, flows

    def reserve(self, legs: list[Any]) -> str:
        owed, flows = self.needs(legs)
        if any(self.rows.get(key, [0])[0] < amount for key, amount in owed.items()):
            return "insufficient_funds"
        for key, amount in owed.items():
            self.move(key, -amount, amount)
        for key, (entering, leaving) in flows.items():
            self.move(key, 0, 0, entering, leaving)
        return ""

    def apply(self, legs: list[Any]) -> None:
        for leg in legs:
            row, (owed, flows) = leg[1] + leg[2].encode(), self.needs([leg])
            for key, amount in owed.items():
                self.move(key, 0, -amount)
            for key, (entering, leaving) in flows.items():
                self.move(key, entering, leaving, -entering, -leaving)
            if shard_of(leg[1]) == self.shard and leg[4]:
                self.put(row, [*self.rows.get(row, [0, 0])[:2], leg[4] == 1])
            elif shard_of(leg[1]) == self.shard and leg[1] != ISSUERS[leg[2]]:
                self.move(row, leg[3], 0)

    def legs_here(self, legs: list[Any]) -> list[Any]:
        return [leg for leg in legs if self.shard in (shard_of(leg[0]), shard_of(leg[1]))]

    def include(self, encoded: bytes) -> None:
        order, witnesses = msgpack.unpackb(encoded)
        transaction_id, legs, valid_until = digest("transaction", order), order[1], order[3]
        assert all(reference.verify(public, transaction_id, signature) for public, signature in witnesses)
        assert self.time <= valid_until <= self.time + PARAMETERS["validity_window"]
        others = sorted({shard_of(address) for leg in legs for address in leg[:2]} - {self.shard})
        if code := self.reserve(legs):
            self.receipts.append([transaction_id, 3, code])
        elif others:
            deadline = self.time + PARAMETERS["commit_timeout"]
            self.put(transaction_id + b"w", [self.legs_here(legs), deadline, others, others])
            for shard in others:
                self.outbox[shard].append([1, encoded, deadline])
            self.receipts.append([transaction_id, 1, ""])
        else:
            self.apply(legs)
            self.receipts.append([transaction_id, 2, ""])

    def prepare(self, source: int, encoded: bytes, _: int) -> None:
        order, witnesses = msgpack.unpackb(encoded)
        transaction_id = digest("transaction", order)
        own = [witness for witness in witnesses if shard_of(sha256(witness[0]).digest()[:20]) == self.shard]
        assert all(reference.verify(public, transaction_id, signature) for public, signature in own)
        assert self.reserve(order[1]) == ""
        self.put(transaction_id + b"p", [self.legs_here(order[1]), source])
        if own:
            self.put(transaction_id + b"a", order[3] + PARAMETERS["commit_timeout"])
        self.outbox[source].append([2, transaction_id, ""])

    def count_vote(self, source: int, transaction_id: bytes, code: str) -> None:
        legs, _, participants, awaiting = self.rows[transaction_id + b"w"]
        assert (awaiting, code) == ([source], "")
        self.finish(transaction_id, b"w", legs)
        for shard in participants:
            self.outbox[shard].append([3, transaction_id, True])

    def obey(self, source: int, transaction_id: bytes, commit: bool) -> None:
        legs, home = self.rows[transaction_id + b"p"]
        assert (home, commit) == (source, True)
        self.finish(transaction_id, b"p", legs)

    def finish(self, transaction_id: bytes, kind: bytes, legs: list[Any]) -> None:
        self.apply(legs)
        self.put(transaction_id + kind, None)
        self.receipts.append([transaction_id, 2, ""])


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"shard {chain['electorate']['shard']}")
def test_executing_the_chains_as_the_specification_says_gives_their_roots_and_bundles(chain: Any) -> None:
    ledger, sent = Ledger(chain["electorate"]["shard"]), []
    for entry in chain["blocks"]:
        header, bundles, transactions = msgpack.unpackb(bytes.fromhex(entry["certified_block"]))[0]
        roots, outbox = ledger.execute(header[4], header[6], [msgpack.unpackb(b)[0] for b in bundles], transactions)
        assert roots == header[9:14], f"height {header[4]}"
        sent += outbox
    assert sent == [msgpack.unpackb(bytes.fromhex(bundle["encoded"]))[0] for bundle in chain["bundles"]]
    assert len(chain["blocks"]) >= PARAMETERS["checkpoint_interval"]
