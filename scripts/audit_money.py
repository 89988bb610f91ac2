"""``scripts/audit``: asks every shard for its totals, proven by its committee, and says whether money is conserved.

A total is believed when it comes in a block that a quorum of the shard's committee made final, and a quorum of members
say that they stand at that height or above: an old block cannot be passed off for the latest one.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.client.blocks import prove_block
from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal, Totals, net
from node.protocol.genesis import read_genesis
from node.protocol.queries import BlockList, GetBlocks, GetStatus
from scripts.devnet import folder as folders
from scripts.devnet.client import Client, ClientError, devnet_client
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import Folder

DESCRIPTION = """Asks every shard for its totals, proven by its committee, and says whether money is conserved, per asset.

While cross-shard transactions are under way it waits for them to be decided and delivered. Exit code: 0 conserved, 1 not,
2 it cannot be told: too few nodes answer, or transactions are still under way when the time is over."""
EXIT_CODES = {True: 0, False: 1, None: 2}
SHOWN = {True: "yes", False: "NO", None: "?"}
VERDICTS = {True: "Money is conserved.", False: "MONEY IS NOT CONSERVED.", None: "Whether money is conserved cannot be told now."}


class AuditError(Exception):
    """The audit cannot be made; the text says why."""


class ShardTotals(Struct, frozen=True):
    """A shard's totals after its block ``height``, proven."""

    height: int
    totals: Totals


def proven_totals(client: Client, shard: int) -> ShardTotals:
    """The shard's totals at the greatest height a quorum has reached.

    Raises:
        AuditError: no quorum answers, or nobody has the block.
        ClientError: the broker cannot be reached.
    """
    question = client.answers(shard, GetStatus())
    electorate, height = question.electorate, question.quorum_height()
    if height is None:
        many = f"{len(question.answers)} of {len(electorate.keys)}"
        raise AuditError(f"shard {shard}: {many} nodes answer, {electorate.quorum} needed")
    if height == 0:
        return ShardTotals(0, Totals((), 0))
    for member in question.answers:
        answer = client.answers(shard, GetBlocks(height, 1), member).answer
        for certified in answer.blocks if isinstance(answer, BlockList) else ():
            block = prove_block(certified, electorate)
            if block is not None and block.header.height == height:
                return ShardTotals(height, certified.effects.totals)
    raise AuditError(f"shard {shard}: no node shows block {height}")


def audit(shards: dict[int, ShardTotals], decimals: dict[str, int]) -> dict[str, Any]:
    """Compare: what exists, with what was issued; what left each shard, with what arrived. Plain JSON values.

    ``conserved`` is None while that cannot be told: the shards are not seen at one instant, so what is under way has to arrive.
    """
    assets: defaultdict[str, dict[int, AssetTotal]] = defaultdict(dict)
    for shard, proven in shards.items():
        for total in proven.totals.assets:
            assets[total.asset][shard] = total
    pending = sum(proven.totals.pending for proven in shards.values())
    settled = pending == 0 and all(not any(_in_flight(totals).values()) for totals in assets.values())
    results = {asset: _compare(totals, decimals.get(asset, 0), settled) for asset, totals in sorted(assets.items())}
    verdicts = {result["conserved"] for result in results.values()}
    return {
        "conserved": False if False in verdicts else True if settled else None,
        "pending": pending,
        "settled": settled,
        "heights": {str(shard): proven.height for shard, proven in sorted(shards.items())},
        "assets": results,
    }


def _compare(totals: dict[int, AssetTotal], decimals: int, settled: bool) -> dict[str, Any]:
    """One asset. What a shard holds for payments is undecided, so once all is settled it holds nothing."""
    sums = {name: sum(getattr(t, name) for t in totals.values()) for name in ("available", "held", "issued")}
    sums["in_flight"] = sum(_in_flight(totals).values())
    balanced = sums["available"] + sums["held"] + sums["in_flight"] == sums["issued"]
    conserved = False if not balanced else sums["held"] == 0 if settled else None
    return {**{name: format_amount(value, decimals) for name, value in sums.items()}, "conserved": conserved}


def _in_flight(totals: dict[int, AssetTotal]) -> dict[tuple[int, int], int]:
    """Per (source, destination): what the one says it sent, less what the other says it took in."""
    sent = {(shard, peer.shard): peer.exported for shard, total in totals.items() for peer in total.peers}
    taken = {(peer.shard, shard): peer.imported for shard, total in totals.items() for peer in total.peers}
    return {channel: net(sent.get(channel, 0), taken.get(channel, 0)) for channel in sent | taken}


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
    except (AuditError, ClientError, FolderError, OSError, ValueError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result) if options.json else table(result))
    return EXIT_CODES[result["conserved"]]


def run(folder: Folder, wait: float) -> dict[str, Any]:
    """Audit until everything under way is settled, or ``wait`` seconds have passed. Raises AuditError, ClientError."""
    devnet = folders.open_devnet(folder)
    genesis = read_genesis(folder.genesis)
    decimals = {asset.code: asset.decimals for asset in genesis.assets}
    deadline = time.monotonic() + wait
    with devnet_client(devnet) as client:
        shards = client.document().electorates
        while True:
            result = audit({shard: proven_totals(client, shard) for shard in shards}, decimals)
            if result["conserved"] is not None or time.monotonic() > deadline:
                return result
            print(f"waiting: {result['pending']} transactions under way ...", file=sys.stderr)
            time.sleep(1)


def table(result: dict[str, Any]) -> str:
    columns = ("available", "held", "in_flight", "issued")
    lines = [f"  {'asset':<8}" + "".join(f"{name:>18}" for name in columns) + "   conserved"]
    for asset, values in result["assets"].items():
        lines.append(f"  {asset:<8}" + "".join(f"{values[n]:>18}" for n in columns) + f"   {SHOWN[values['conserved']]}")
    heights = ", ".join(f"shard {shard} at {height}" for shard, height in result["heights"].items())
    verdict = VERDICTS[result["conserved"]]
    if not result["settled"]:
        verdict += f" Not settled: {result['pending']} transactions still under way."
    return "\n".join([*lines, f"  proven by the committees: {heights}", verdict])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
