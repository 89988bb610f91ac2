"""``scripts/audit``: asks every shard for its totals, proven by its committee, and says whether money is conserved.

A total is believed when it comes in a block that a quorum of the shard's committee made final, and a quorum of members
say that they stand at that height or above: an old block cannot be passed off for the latest one.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.client.blocks import prove_block
from node.client.decisions import Decisions
from node.protocol.amounts import format_amount
from node.protocol.block import AssetTotal, Totals, net
from node.protocol.certificate import CertifiedBlock, Electorate
from node.protocol.epoch import EpochDocument
from node.protocol.genesis import read_genesis
from node.protocol.queries import BlockList, GetBlocks, GetStatus
from scripts.audit_boundaries import differences
from scripts.devnet import folder as folders
from scripts.devnet.client import Client, ClientError, devnet_client
from scripts.devnet.folder import FolderError
from scripts.devnet.layout import Folder

DESCRIPTION = """Asks every shard for its totals, proven by its committee, and says whether money is conserved, per asset.

It looks at every epoch: what there was when it ended must be what the next one began with. While an epoch begins, or cross-shard
transactions are under way, it waits for them to be decided and delivered. When money is not conserved, or that
cannot be told, it looks in the latest blocks for transactions that a home shard decided both ways, and names them. Exit code: 0
conserved, 1 not, 2 it cannot be told: too few nodes answer, or transactions are still under way when the time is over."""
BLOCKS_READ = 1_000
"""Of each shard, the latest ones, to find out what went wrong."""
BLOCKS_ASKED = 256
EXIT_CODES = {True: 0, False: 1, None: 2}
SHOWN = {True: "yes", False: "NO", None: "?"}
VERDICTS = {True: "Money is conserved.", False: "MONEY IS NOT CONSERVED.", None: "Whether money is conserved cannot be told now."}


class AuditError(Exception):
    """The audit cannot be made; the text says why."""


class ShardTotals(Struct, frozen=True):
    """A shard's totals after its block ``height``, proven."""

    height: int
    totals: Totals


class NotYet(AuditError):
    """A chain has no block yet."""


Shards = dict[int, ShardTotals]


def proven_totals(client: Client, electorate: Electorate) -> ShardTotals:
    """The shard's totals at the greatest height a quorum has reached.

    Raises:
        AuditError: no quorum answers, or nobody has the block; NotYet: there is none.
        ClientError: the broker cannot be reached.
    """
    shard, question = electorate.shard, client.answers(electorate, GetStatus())
    height = question.quorum_height()
    if height is None:
        many = f"{len(question.answers)} of {len(electorate.keys)}"
        raise AuditError(f"shard {shard}: {many} nodes answer, {electorate.quorum} needed")
    if height == 0 and electorate.epoch > 1:
        raise NotYet(f"shard {shard}: no block of epoch {electorate.epoch} yet")
    if height == 0:
        return ShardTotals(0, Totals((), 0))
    for member in question.answers:
        answer = client.answers(electorate, GetBlocks(height, 1), member).answer
        for certified in answer.blocks if isinstance(answer, BlockList) else ():
            block = prove_block(certified, electorate)
            if block is not None and block.header.height == height:
                return ShardTotals(height, certified.effects.totals)
    raise AuditError(f"shard {shard}: no node shows block {height}")


def proven_blocks(client: Client, electorate: Electorate, first: int, last: int) -> Iterator[CertifiedBlock]:
    """The shard's blocks at these heights.

    Raises:
        AuditError: nobody has one of them. ClientError: the broker cannot be reached.
    """
    while first <= last:
        before = first
        for member in range(len(electorate.keys)):
            answer = client.answers(electorate, GetBlocks(first, min(BLOCKS_ASKED, last - first + 1)), member).answer
            for certified in answer.blocks if isinstance(answer, BlockList) else ():
                if certified.block.header.height != first or prove_block(certified, electorate) is None:
                    break
                yield certified
                first += 1
            if first > before:
                break
        else:
            raise AuditError(f"shard {electorate.shard}: no node shows block {first}")


def contradictions(client: Client, electorates: Mapping[int, Electorate], heights: dict[int, int]) -> list[str]:
    """Transactions that a home shard decided both ways, as the shards' latest blocks show it. Raises AuditError, ClientError."""
    decisions = Decisions(electorates)
    return [
        str(found)
        for shard, height in heights.items()
        for certified in proven_blocks(client, electorates[shard], max(1, height - BLOCKS_READ + 1), height)
        for found in decisions.read(certified)
    ]


def audit(shards: Shards, decimals: dict[str, int], before: Shards | None = None) -> dict[str, Any]:
    """Compare: what exists, with what was issued; what left each shard, with what arrived. Plain JSON values.

    ``conserved`` is None while that cannot be told: the shards are not seen at one instant, so what is under way has to arrive.
    ``before``: the same seen earlier. What had arrived then must have left by now: if not, somebody made it up.
    """
    assets, earlier = _by_asset(shards), _by_asset(before or {})
    made_up = {
        asset: {channel: -units for channel, units in _in_flight(totals, earlier[asset]).items() if units < 0}
        for asset, totals in assets.items()
    }
    pending = sum(proven.totals.pending for proven in shards.values())
    settled = pending == 0 and all(not any(_in_flight(totals).values()) for totals in assets.values())
    results = {
        asset: _compare(totals, decimals.get(asset, 0), settled, made_up[asset]) for asset, totals in sorted(assets.items())
    }
    verdicts = {result["conserved"] for result in results.values()}
    return {
        "conserved": False if False in verdicts else True if settled else None,
        "pending": pending,
        "settled": settled,
        "heights": {str(shard): proven.height for shard, proven in sorted(shards.items())},
        "assets": results,
    }


def _by_asset(shards: Shards) -> defaultdict[str, dict[int, AssetTotal]]:
    assets: defaultdict[str, dict[int, AssetTotal]] = defaultdict(dict)
    for shard, proven in shards.items():
        for total in proven.totals.assets:
            assets[total.asset][shard] = total
    return assets


def _compare(totals: dict[int, AssetTotal], decimals: int, settled: bool, made_up: dict[tuple[int, int], int]) -> dict[str, Any]:
    """One asset. What a shard holds for payments is undecided, so once all is settled it holds nothing."""
    sums = {name: sum(getattr(t, name) for t in totals.values()) for name in ("available", "held", "issued")}
    sums["in_flight"] = sum(_in_flight(totals).values())
    balanced = sums["available"] + sums["held"] + sums["in_flight"] == sums["issued"]
    conserved = False if made_up or not balanced else sums["held"] == 0 if settled else None
    figures = {name: format_amount(value, decimals) for name, value in sums.items()}
    never_left = {f"{source} -> {shard}": format_amount(units, decimals) for (source, shard), units in made_up.items()}
    return {**figures, "never_left": never_left, "conserved": conserved}


def _in_flight(totals: dict[int, AssetTotal], arrived: dict[int, AssetTotal] | None = None) -> dict[tuple[int, int], int]:
    """Per (source, destination): what the one says it sent, less what the other says it took in, as of ``arrived`` if given."""
    arrived = totals if arrived is None else arrived
    sent = {(shard, peer.shard): peer.exported for shard, total in totals.items() for peer in total.peers}
    taken = {(peer.shard, shard): peer.imported for shard, total in arrived.items() for peer in total.peers}
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
    with devnet_client(devnet) as client:
        client.document()
        deadline, epoch, before = time.monotonic() + wait, 0, None
        while True:
            document = client.document()
            if document.number != epoch:
                epoch, before = document.number, None
            try:
                shards = {shard: proven_totals(client, electorate) for shard, electorate in document.electorates.items()}
                result = audit(shards, decimals, before)
                if result["conserved"] is not None or time.monotonic() > deadline:
                    return _explained(client, document, result, shards, decimals)
                before, waiting = shards, f"{result['pending']} transactions under way"
            except AuditError as error:
                is_over = client.document().number == epoch and not isinstance(error, NotYet)
                if is_over or time.monotonic() > deadline:
                    raise
                waiting = str(error)
            print(f"waiting: {waiting} ...", file=sys.stderr)
            time.sleep(1)


def _explained(
    client: Client, document: EpochDocument, result: dict[str, Any], shards: Shards, decimals: dict[str, int]
) -> dict[str, Any]:
    """With what became of the money from epoch to epoch, and, unless all is well, with what the blocks show. A transaction
    decided both ways makes money, or loses it."""
    known, found, number = client.epochs, list[str](), document.number
    latest = {shard: proven.totals for shard, proven in shards.items()}
    lost = differences(known.documents[:number], known.chronicle.successions[: number - 1], latest, decimals)
    if lost or not result["conserved"]:
        try:
            found = contradictions(client, document.electorates, {shard: proven.height for shard, proven in shards.items()})
        except AuditError as error:
            print(f"cannot look for what was decided both ways: {error}", file=sys.stderr)
    conserved = False if found or lost else result["conserved"]
    return {**result, "conserved": conserved, "epoch": number, "boundaries": lost, "contradictions": found}


def table(result: dict[str, Any]) -> str:
    columns = ("available", "held", "in_flight", "issued")
    lines = [f"  {'asset':<8}" + "".join(f"{name:>18}" for name in columns) + "   conserved"]
    for asset, values in result["assets"].items():
        lines.append(f"  {asset:<8}" + "".join(f"{values[n]:>18}" for n in columns) + f"   {SHOWN[values['conserved']]}")
        lines += [f"    {units} {asset} arrived that never left: shard {way}" for way, units in values["never_left"].items()]
    lines += [f"  {text}" for text in (*result["boundaries"], *result["contradictions"])]
    heights = ", ".join(f"shard {shard} at {height}" for shard, height in result["heights"].items())
    heights += f" of epoch {result['epoch']}"
    verdict = VERDICTS[result["conserved"]]
    if not result["settled"]:
        verdict += f" Not settled: {result['pending']} transactions still under way."
    return "\n".join([*lines, f"  proven by the committees: {heights}", verdict])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
