"""``scripts/audit``: asks every shard for its totals, proven by its committee, and says whether money is conserved.

A total is believed when it comes in a block that a quorum of the shard's committee made final, and a quorum of members
say that they stand at that height or above: an old block cannot be passed off for the latest one.
"""

import argparse
import json
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from msgspec import Struct

from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal, Totals
from node.protocol.codec import DecodeError, decode, encode
from node.protocol.epoch import Announcement, EpochDocument, SignedDocument
from node.protocol.genesis import Genesis, read_genesis
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.queries import Answer, BlockList, GetBlocks, GetStatus, NodeStatus, Query, Reply, Request
from node.protocol.topics import epoch_topic, queries_topic, replies_topic
from scripts.devnet import folder as folders
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import Folder

DESCRIPTION = """Asks every shard for its totals, proven by its committee, and says whether money is conserved, per asset.

While cross-shard transactions are under way it waits for them to be decided and delivered. Exit code: 0 conserved, 1 not,
2 not enough nodes to tell."""
ANSWER_SECONDS = 2.0
ANNOUNCEMENT_SECONDS = 3.0


class AuditError(Exception):
    """The audit cannot be made; the text says why."""


class ShardTotals(Struct, frozen=True):
    """A shard's totals after its block ``height``, proven."""

    height: int
    totals: Totals


class Auditor:
    """Asks nodes over the broker; believes nothing that is not signed by who may say it."""

    def __init__(self, url: str, genesis: Genesis, document: EpochDocument) -> None:
        self._redis = redis.Redis.from_url(url)
        self._genesis, self._document = genesis, document
        self._client = f"audit-{secrets.token_hex(8)}"
        self._pubsub: Any = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(replies_topic(genesis.network, self._client))
        self._pubsub.get_message(timeout=1.0)

    def ask(self, shard: int, request: Request, member: int = -1) -> dict[int, Answer]:
        """The members' answers, by member; waits for all that were asked, or ANSWER_SECONDS."""
        electorate = self._document.electorates[shard]
        query = Query(secrets.token_bytes(16), self._client, member, request)
        self._redis.publish(queries_topic(self._genesis.network, shard), encode(query))
        expected = len(electorate.keys) if member < 0 else 1
        answers: dict[int, Answer] = {}
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(answers) < expected and (left := deadline - time.monotonic()) > 0:
            message = self._pubsub.get_message(timeout=left)
            if message is None:
                continue
            try:
                reply = decode(Reply, message["data"], MAX_BROKER_BODY_BYTES)
            except DecodeError:
                continue
            if reply.id == query.id and reply.is_valid(electorate):
                answers[reply.member] = reply.answer
        return answers

    def totals(self, shard: int) -> ShardTotals:
        """The shard's totals at the greatest height a quorum has reached.

        Raises:
            AuditError: no quorum answers, or nobody has the block.
        """
        electorate = self._document.electorates[shard]
        answers = self.ask(shard, GetStatus())
        heights = sorted((a.height for a in answers.values() if isinstance(a, NodeStatus)), reverse=True)
        if len(heights) < electorate.quorum:
            raise AuditError(f"shard {shard}: {len(heights)} of {len(electorate.keys)} nodes answer, {electorate.quorum} needed")
        height = heights[electorate.quorum - 1]
        if height == 0:
            return ShardTotals(0, Totals((), 0))
        for member in answers:
            for answer in self.ask(shard, GetBlocks(height, 1), member).values():
                if isinstance(answer, BlockList) and answer.blocks:
                    block = answer.blocks[0]
                    if block.block.header.height == height and block.is_valid(electorate):
                        return ShardTotals(height, block.effects.totals)
        raise AuditError(f"shard {shard}: no node shows block {height}")


def audit(shards: dict[int, ShardTotals], decimals: dict[str, int]) -> dict[str, Any]:
    """Compare: what exists, with what was issued; what left each shard, with what arrived. Plain JSON values."""
    assets: defaultdict[str, dict[int, AssetTotal]] = defaultdict(dict)
    for shard, proven in shards.items():
        for total in proven.totals.assets:
            assets[total.asset][shard] = total
    pending = sum(proven.totals.pending for proven in shards.values())
    results = {}
    for asset, totals in sorted(assets.items()):
        available = sum(t.available for t in totals.values())
        held = sum(t.held for t in totals.values())
        issued = sum(t.minted - t.burned for t in totals.values())
        channels = _in_flight(totals)
        in_flight = sum(channels.values())
        conserved = available + held + in_flight == issued and (pending > 0 or not any(channels.values()))

        def shown(value: int, asset: str = asset) -> str:
            return format_amount(value, decimals[asset])

        results[asset] = {
            "available": shown(available),
            "held": shown(held),
            "in_flight": shown(in_flight),
            "minted": shown(sum(t.minted for t in totals.values())),
            "burned": shown(sum(t.burned for t in totals.values())),
            "conserved": conserved and (pending > 0 or held == 0),
        }
    return {
        "conserved": all(result["conserved"] for result in results.values()),
        "pending": pending,
        "settled": pending == 0 and all(not any(_in_flight(t).values()) for t in assets.values()),
        "heights": {str(shard): proven.height for shard, proven in sorted(shards.items())},
        "assets": results,
    }


def _in_flight(totals: dict[int, AssetTotal]) -> dict[tuple[int, int], int]:
    """Per (source, destination): what the one says it sent, less what the other says it took in."""
    channels: defaultdict[tuple[int, int], int] = defaultdict(int)
    for shard, total in totals.items():
        for peer in total.peers:
            channels[(shard, peer.shard)] += peer.exported
            channels[(peer.shard, shard)] -= peer.imported
    return channels


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/audit", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".shardpay"), metavar="DIR", help="the network's folder (.shardpay)")
    parser.add_argument("--port-base", type=int, metavar="P", help="as given to up; the folder knows it already")
    parser.add_argument("--wait", type=float, default=45.0, metavar="SECONDS", help="for transactions under way (45)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        result = run(Folder(options.data.absolute().resolve()), options.wait)
    except (AuditError, FolderError, OSError, redis.RedisError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result) if options.json else table(result))
    return 0 if result["conserved"] and result["settled"] else 1


def run(folder: Folder, wait: float) -> dict[str, Any]:
    """Audit until everything under way is settled, or ``wait`` seconds have passed. Raises AuditError."""
    devnet = folders.open_devnet(folder)
    genesis = read_genesis(folder.genesis)
    document = epoch_document(folder, devnet.broker_url, genesis)
    auditor = Auditor(devnet.broker_url, genesis, document)
    decimals = {asset.code: asset.decimals for asset in genesis.assets}
    deadline = time.monotonic() + wait
    while True:
        result = audit({shard: auditor.totals(shard) for shard in document.electorates}, decimals)
        if result["settled"] or time.monotonic() > deadline:
            return result
        print(f"waiting: {result['pending']} transactions under way ...", file=sys.stderr)
        time.sleep(1)


def epoch_document(folder: Folder, url: str, genesis: Genesis) -> EpochDocument:
    """The coordinator's announcement or, while it is away, the document ``up`` kept; checked either way. Raises AuditError."""
    with redis.Redis.from_url(url) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(epoch_topic(genesis.network))
        deadline = time.monotonic() + ANNOUNCEMENT_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            message = pubsub.get_message(timeout=left)
            signed = decode(Announcement, message["data"], MAX_BROKER_BODY_BYTES).document if message else None
            if signed is not None:
                signed.check(genesis)
                return signed.document
    try:
        kept = decode(SignedDocument, (folder.run / "epoch-document").read_bytes(), MAX_BROKER_BODY_BYTES)
        kept.check(genesis)
    except (OSError, ValueError):
        raise AuditError("no epoch document: the coordinator is away and none was kept") from None
    return kept.document


def table(result: dict[str, Any]) -> str:
    columns = ("available", "held", "in_flight", "minted", "burned")
    lines = [f"  {'asset':<8}" + "".join(f"{name:>18}" for name in columns) + "   conserved"]
    for asset, values in result["assets"].items():
        lines.append(
            f"  {asset:<8}" + "".join(f"{values[n]:>18}" for n in columns) + f"   {'yes' if values['conserved'] else 'NO'}"
        )
    heights = ", ".join(f"shard {shard} at {height}" for shard, height in result["heights"].items())
    verdict = "Money is conserved." if result["conserved"] else "MONEY IS NOT CONSERVED."
    if not result["settled"]:
        verdict += f" Not settled: {result['pending']} transactions still under way."
    return "\n".join([*lines, f"  proven by the committees: {heights}", verdict])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
