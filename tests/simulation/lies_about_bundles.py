"""What liars do with bundles: those of their own shard, and those that are brought to it."""

from collections.abc import Sequence
from typing import TypeGuard

from msgspec import structs

from node.effects import Broadcast, Commit, Effect, Send, SendBundles
from node.protocol.channel import Bundle
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest
from tests.simulation.adversary import Adversary


def withhold_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Carries nothing to other shards."""
    return [] if _is_of_bundle(effect) else [effect]


def _is_of_bundle(effect: Effect) -> TypeGuard[Send | SendBundles]:
    return isinstance(effect, SendBundles) or (
        isinstance(effect, Send) and isinstance(effect.message, BundleDelivery | BundleName)
    )


def hoard_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Keeps to itself what other shards bring to it."""
    return [] if _is_of_bundle(effect) and effect.peer in liar.electorate.keys else [effect]


def deliver_to_liars(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Carries bundles to liars only."""
    return [] if _is_of_bundle(effect) and liar.node.world.by_key[effect.peer].is_honest else [effect]


def name_bundles_only(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Names what it should bring, and gives it to nobody who asks."""
    if isinstance(effect, Send) and isinstance(effect.message, BundleDelivery):
        bundle = effect.message.bundle.bundle
        return [structs.replace(effect, message=BundleName(bundle.source, bundle.sequence))]
    return [] if isinstance(effect, SendBundles) else [effect]


def name_what_nobody_has(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Names many bundles, the next ones and far ones, before anybody has them, of all channels and to all who hear it."""
    if not isinstance(effect, Commit) or liar.chance.random() < 0.8:
        return [effect]
    state, own, world = liar.replica.state, liar.replica.shard, liar.node.world
    far = (1, 2, 3, 30, 64, 65, 1 << 40)
    found = [Send(key, BundleName(s, state.cursor(s) + i)) for key in liar.others for s in world.shards for i in far]
    for shard in world.shards:
        keys = [node.key.public for node in world.committee(shard)]
        found += [Send(key, BundleName(own, state.sequence(shard) + i), shard) for key in keys for i in far if shard != own]
    return [effect, *found]


def claim_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Says that it has taken the next bundles that it never saw, so that their source may forget them; and carries none."""
    if not isinstance(effect, Commit):
        return withhold_bundles(liar, effect)
    own, state = liar.replica.shard, liar.replica.state
    asked = [(s, BundleRequest(own, state.cursor(s) + 4)) for s in liar.node.world.shards if s != own]
    return [effect, *(Send(node.key.public, request) for s, request in asked for node in liar.node.world.committee(s))]


def forge_bundles(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Bundles nobody sent: right header and wrong records, wrong sequence, or all of it made up."""
    if not isinstance(effect, Broadcast) or liar.chance.random() < 0.8:
        return [effect]
    found: list[Effect] = [effect]
    replica, state = liar.replica, liar.replica.state
    for destination, electorate in replica.document.electorates.items():
        if destination == replica.shard:
            continue
        bundle = Bundle(replica.shard, destination, state.sequence(destination) + 1, tuple(liar.made_up_records()))
        forged = liar.certified_by_itself(
            bundle, structs.replace(replica.consensus.tree.root, document=replica.electorate.document)
        )
        found += [Send(key, BundleDelivery(forged)) for key in electorate.keys]
    for message in liar.heard[-50:]:  # what others sent, with other records or another number
        if isinstance(message, BundleDelivery):
            known = message.bundle.bundle
            number = structs.replace(known, sequence=known.sequence + 1)
            for changed in (number, structs.replace(number, records=tuple(liar.made_up_records()))):
                delivery = BundleDelivery(structs.replace(message.bundle, bundle=changed))
                found += [Send(key, delivery) for key in liar.others]
    return found


def deliver_late(liar: Adversary, effect: Effect) -> Sequence[Effect]:
    """Bundles again and again, later ones before earlier ones."""
    if isinstance(effect, Send) and isinstance(effect.message, BundleDelivery):
        bundle = effect.message.bundle.bundle
        return [effect, effect, SendBundles(effect.peer, bundle.destination, max(1, bundle.sequence - 2))]
    return [effect]
