"""The totals of one shard: what its rows sum up to, asset by asset."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from node.ledger.reader import NO_SUPPLY, Supply
from node.ledger.rows import FLOW, ISSUER, NAME_BYTES, Flow, Prepared, Waiting, parse_flow_key
from node.protocol.block import AssetTotal, PeerTotal, Totals

if TYPE_CHECKING:  # a state is made with its totals
    from node.ledger.state import Overlay, State


class Corrupt(ValueError):
    """The rows are not those of the checkpoint they claim to be."""


def sum_supply(state: "State") -> dict[bytes, Supply]:
    """By asset, as in the rows' keys, from nothing but the rows."""
    sums: defaultdict[bytes, Supply] = defaultdict(Supply)
    for key, balance in state.balances.items():
        supply = sums[key[NAME_BYTES:]]
        supply.available += balance.available
        supply.held += balance.held
    for key, flow in state.records.items():
        if isinstance(flow, Flow):
            sums[key[NAME_BYTES:-1]].entering += flow.entering
    return dict(sums)


def recompute_totals(state: "State") -> Totals:
    """The totals, from nothing but the state's rows. Raises Corrupt when an asset's invariant (``AssetTotal``) does not hold."""
    supply = sum_supply(state)
    pending = sum(isinstance(record, Waiting | Prepared) for record in state.records.values())
    flows = ((key, record) for key, record in state.records.items() if isinstance(record, Flow))
    carried = ((code, state.carried(suffix)) for code, suffix in state.rules.suffixes.items())
    before = Totals(tuple(AssetTotal(code, 0, 0, 0, 0, units, ()) for code, units in carried if units), pending)
    totals = _totals(before, supply, [suffix.decode() for suffix in supply], flows)
    for total in totals.assets:
        if not total.is_balanced:
            raise Corrupt(f"{total.available + total.held} units of {total.asset} are here, but not as many came in: {total}")
    return totals


def totals_after(overlay: "Overlay") -> Totals:
    """The totals after the block: those before it, with the figures of the assets it touched anew."""
    before, pending = overlay.totals(), sum(overlay.waiting_for.values()) + sum(overlay.prepared_for.values())
    flows = [(key, overlay.flow(key)) for key in overlay.records if key.endswith(FLOW)]
    touched = {parse_flow_key(key)[1] for key, _ in flows}
    for total in before.assets:
        now = overlay.supply.get(overlay.rules.suffixes[total.asset], NO_SUPPLY)
        if (total.available, total.held) != (now.available, now.held):
            touched.add(total.asset)
    if not touched and pending == before.pending:
        return before
    return _totals(Totals(before.assets, pending), overlay.supply, touched, flows)


def _totals(before: Totals, supply: dict[bytes, Supply], touched: Iterable[str], flows: Iterable[tuple[bytes, Flow]]) -> Totals:
    assets = {total.asset: total for total in before.assets}
    boundaries: dict[str, dict[int, Flow]] = {}
    for key, flow in flows:
        boundary, code = parse_flow_key(key)
        boundaries.setdefault(code, {})[boundary] = flow
    for code in touched:
        known = assets.get(code) or AssetTotal(code, 0, 0, 0, 0, 0, ())
        changed = boundaries.get(code, {})
        issued = changed.pop(ISSUER, Flow(known.minted, known.burned))
        peers = {peer.shard: peer for peer in known.peers}
        peers |= {shard: PeerTotal(shard, flow.left, flow.entered) for shard, flow in changed.items()}
        by_shard = tuple(peers[shard] for shard in sorted(peers) if peers[shard].exported or peers[shard].imported)
        now = supply.get(code.encode(), NO_SUPPLY)
        assets[code] = AssetTotal(code, now.available, now.held, issued.entered, issued.left, known.carried, by_shard)
        if not (now.available or now.held or issued.entered or issued.left or known.carried or by_shard):
            del assets[code]
    return Totals(tuple(assets[code] for code in sorted(assets)), before.pending)
