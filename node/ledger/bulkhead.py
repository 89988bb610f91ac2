"""The bulkhead between shards: nobody takes in from a shard more than that one can have.

A shard can have, of an asset issued elsewhere, what all others passed to it less what they took in from it. What went on between
it and this shard is in the own flows, exactly. What went on between it and third shards these tell in their ``Figures``; what it
says of itself counts for nothing. What went on in earlier epochs is its credit (``protocol.credits``). A shard that keeps the
issuer's account may have minted any amount.

Figures are certified like everything in a bundle, and as old as the way they take. What an honest shard passes on that they do
not show yet is not lost: it waits until they do.
"""

from collections.abc import Iterable

from node.ledger.channels import Outbox
from node.ledger.reader import Reader
from node.ledger.rows import TOLD_KEY, Told, figure_key, flow_key
from node.ledger.rules import FIGURES_PAUSE, Rules
from node.ledger.state import Overlay
from node.ledger.transfer import Route, can_take_in, incoming
from node.protocol.block import net
from node.protocol.channel import Figure, Figures
from node.protocol.limits import MAX_AMOUNT


def covers(overlay: Overlay, rules: Rules, routes: Iterable[Route], home: int) -> bool:
    """Whether the shards from which units enter over ``routes`` can have them, and they can all be taken in here at once."""
    in_all: dict[bytes, tuple[int, int]] = {}
    for (shard, suffix), (entering, burning) in incoming(rules, routes, home).items():
        others, burned = in_all.get(suffix, (0, 0))
        in_all[suffix] = others + entering, burned + burning
        if entering > room(overlay, rules, shard, suffix) or not can_take_in(overlay, suffix, *in_all[suffix]):
            return False
    return True


def room(view: Reader, rules: Rules, shard: int, suffix: bytes) -> int:
    """How many units of an asset more the shard can have than it has passed to this one."""
    if rules.issued_in[suffix] == shard:
        return MAX_AMOUNT
    flow, told = view.flow(flow_key(shard, suffix)), view.figure(figure_key(rules.shard, shard, suffix))
    for other in rules.peers:
        if other != shard:
            told += view.figure(figure_key(other, shard, suffix))
    return net(flow.left + told, flow.entered)  # each of them begins again by itself where units go round in a ring


def hear(overlay: Overlay, rules: Rules, teller: int, told: Figures) -> None:
    """Keep what another shard tells of third ones."""
    for figure in told.figures:
        suffix = rules.suffixes.get(figure.asset)
        if suffix is not None and figure.shard in rules.peers and figure.shard != teller:
            overlay.records[figure_key(teller, figure.shard, suffix)] = figure.net or None


def tell(overlay: Overlay, rules: Rules, outbox: Outbox) -> None:
    """Tell all others what changed since they were last told, if that is some time ago. About third shards, so with less than
    three there is nothing to tell."""
    if len(rules.peers) < 2:
        return
    last = overlay.record(TOLD_KEY)
    assert last is None or isinstance(last, Told)
    if last is not None and overlay.time < last.time + FIGURES_PAUSE:
        return
    before = {(figure.shard, figure.asset): figure.net for figure in last.figures} if last is not None else {}
    now = _flows(overlay, rules)
    if now == before:
        return
    changed = [Figure(*key, now.get(key, 0)) for key in sorted(now | before) if now.get(key, 0) != before.get(key, 0)]
    for peer in sorted(rules.peers):
        if figures := tuple(figure for figure in changed if figure.shard != peer):
            outbox.send(peer, Figures(figures))
    overlay.records[TOLD_KEY] = Told(overlay.time, tuple(Figure(*key, units) for key, units in sorted(now.items())))


def _flows(overlay: Overlay, rules: Rules) -> dict[tuple[int, str], int]:
    """What this shard passed to each other, less what it took in from there, by shard and asset; without those that are even."""
    found = {}
    for code, suffix in rules.suffixes.items():
        for peer in rules.peers:
            flow = overlay.flow(flow_key(peer, suffix))
            if units := net(flow.left, flow.entered):
                found[peer, code] = units
    return found
