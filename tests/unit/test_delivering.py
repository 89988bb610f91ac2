"""The channels between shards: who sends bundles, who asks for them, and whom."""

import pytest

from node.effects import Commit, Effect, Publish, Send
from node.protocol.channel import CertifiedBundle, PrepareVote
from node.protocol.codes import Code
from node.protocol.messages import BundleDelivery, BundleRequest
from node.replica.inbox import WINDOW
from tests.chains import Network
from tests.unit.replicas import at, catch_up, forge_bundle, make_final, replica_of

NETWORK = Network(committees=3)
HEARTBEAT = NETWORK.genesis.parameters.heartbeat


def test_f_plus_one_members_in_turn_send_a_bundle_to_all_of_its_destination() -> None:
    network = Network(committees=3)
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    for other in network.shards:
        if other is not home:
            home.add(network.pay(issuer, network.person(other.number), 5))
    senders: dict[bytes, list[int]] = {}
    for member in range(4):
        delivered = deliveries(make_final(replica_of(network, member, number=home.number), home))
        for (bundle,) in home.outboxes:
            if peers := [peer for peer, other in delivered if other == bundle]:
                assert tuple(peers) == network.document.electorates[bundle.bundle.destination].keys
                senders.setdefault(bundle.header.hash, []).append(member)
    assert [len(members) for members in senders.values()] == [2, 2]
    assert len(set(map(tuple, senders.values()))) == 2, "not always the same"


def test_who_catches_up_sends_no_bundles_of_blocks_that_were_final_before() -> None:
    """After a new disk these are all that the shard ever sent."""
    network = Network(committees=3)
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    for other in network.shards * 4:
        home.add(network.pay(issuer, network.person(other.number), 5))
    for member in range(4):
        effects = catch_up(replica_of(network, member, number=home.number), home)
        assert [e.height for e in effects if isinstance(e, Commit)] == list(range(1, 13))
        assert not deliveries(effects)
        assert not [effect for effect in effects if isinstance(effect, Publish)]


def deliveries(effects: list[Effect]) -> list[tuple[bytes, CertifiedBundle]]:
    return [(e.peer, e.message.bundle) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleDelivery)]


def requests(effects: list[Effect]) -> list[tuple[bytes, BundleRequest]]:
    sent = [effect for effect in effects if isinstance(effect, Send)]
    return [(effect.peer, effect.message) for effect in sent if isinstance(effect.message, BundleRequest)]


def test_source_shards_and_their_members_are_polled_in_turn_for_what_follows() -> None:
    replica = replica_of(NETWORK, 0)
    asked = [request for beat in range(1, 9) for request in requests(replica.on_tick(at(beat * HEARTBEAT)))]
    assert {request for _, request in asked} == {BundleRequest(0, 1)}
    members = {key: number for number in (1, 2) for key in NETWORK.shards[number].electorate.keys}
    assert sorted(members[peer] for peer, _ in asked) == [1] * 4 + [2] * 4
    assert {peer for peer, _ in asked} == members.keys()


def test_what_is_here_already_is_not_asked_for() -> None:
    replica = replica_of(NETWORK, 0)
    for source in NETWORK.shards[1:]:
        bundle = forge_bundle(source, 0, 1, (PrepareVote(bytes(32), Code.OK),))
        replica.on_message(source.electorate.keys[0], BundleDelivery(bundle), at(1))
    assert replica.counters.bundles_in == 2
    assert not [request for beat in range(1, 5) for request in requests(replica.on_tick(at(beat * HEARTBEAT + 1)))]


@pytest.mark.parametrize(
    ("later", "wanted"),
    [((), []), ((2,), []), ((1 + WINDOW,), [2]), ((2 + WINDOW,), [2]), ((2, 2 + WINDOW), [])],
    ids=["none known", "the next is here", "the next was lost", "no room for later ones", "the next is here, others not"],
)
def test_once_the_chain_has_taken_what_was_here_later_bundles_that_came_are_asked_for_at_once(
    later: tuple[int, ...], wanted: list[int]
) -> None:
    network = Network(committees=3)
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    there = next(shard for shard in network.shards if shard is not home)
    home.add(network.pay(issuer, network.person(there.number), 5))
    there.add(bundles=home.outboxes[0])
    replica = replica_of(network, 0, number=there.number)
    replica.start(at(0))
    effects = []
    for sequence in later:
        bundle = forge_bundle(home, there.number, sequence, (PrepareVote(bytes(32), Code.OK),))
        effects += replica.on_message(home.electorate.keys[0], BundleDelivery(bundle), at(1))
    assert not requests(effects), "they may come in another order"
    asked = requests(make_final(replica, there))
    assert [request for _, request in asked] == [BundleRequest(there.number, sequence) for sequence in wanted]
    assert all(peer in home.electorate.keys for peer, _ in asked)
    assert not requests(replica.on_tick(at(2))), "once"
