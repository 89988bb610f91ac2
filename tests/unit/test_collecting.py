"""What comes from other shards: who passes it on, who is told that it was taken, and what is asked for."""

import pytest
from msgspec import structs

from node.effects import Effect, Send
from node.protocol.channel import CertifiedBundle, PrepareVote
from node.protocol.codes import Code
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest
from node.replica.delivering import first_hands
from node.replica.inbox import WINDOW
from node.replica.replica import Replica
from tests.chains import Network
from tests.unit.replicas import at, forge_bundle, make_final, replica_of

NETWORK = Network(committees=3)
SHARD, SOURCE = NETWORK.shards[0], NETWORK.shards[1]
KEYS = SHARD.electorate.keys
HEARTBEAT = NETWORK.genesis.parameters.heartbeat
BUNDLE = forge_bundle(SOURCE, 0, 1, (PrepareVote(bytes(32), Code.OK),))
HANDS = [KEYS.index(key) for key in first_hands(BUNDLE.bundle, SHARD.electorate)]
OTHERS = [member for member in range(4) if member not in HANDS]


def passed_on(effects: list[Effect], kind: type[BundleDelivery | BundleName] = BundleDelivery) -> list[int]:
    """To which members, in order; or to which it was named."""
    sent = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]
    return sorted(KEYS.index(effect.peer) for effect in sent)


def requests(effects: list[Effect]) -> list[tuple[bytes, BundleRequest]]:
    return [(e.peer, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleRequest)]


def ticking(replica: Replica, start: int, end: int) -> list[tuple[bytes, BundleRequest]]:
    return [request for now in range(start, end, 50) for request in requests(replica.on_tick(at(now)))]


@pytest.mark.parametrize(
    ("member", "peer", "to", "told"),
    [
        (HANDS[0], SOURCE.electorate.keys[2], OTHERS[:1], OTHERS[1:]),
        (HANDS[1], SOURCE.electorate.keys[2], OTHERS[1:], OTHERS[:1]),
        (HANDS[0], KEYS[HANDS[1]], OTHERS[:1], OTHERS[1:]),
        (OTHERS[0], SOURCE.electorate.keys[2], [], sorted([*HANDS, OTHERS[1]])),
        (OTHERS[0], KEYS[HANDS[0]], [], []),
    ],
    ids=["first hand", "the other", "first hand, from the other", "who asked", "who is passed it"],
)
def test_first_hands_share_whom_they_pass_a_new_bundle_on_to_and_name_it_to_the_others(
    member: int, peer: bytes, to: list[int], told: list[int]
) -> None:
    replica = replica_of(NETWORK, member)
    effects = replica.on_message(peer, BundleDelivery(BUNDLE), at(1))
    assert (passed_on(effects), passed_on(effects, BundleName)) == (to, told)
    assert replica.counters.bundles_in == 1
    for again in (peer, *SOURCE.electorate.keys):
        effects = replica.on_message(again, BundleDelivery(BUNDLE), at(2))
        assert passed_on(effects) + passed_on(effects, BundleName) == []


@pytest.mark.parametrize(
    "bundle",
    [
        forge_bundle(SOURCE, 2, 1, (PrepareVote(bytes(32), Code.OK),)),
        forge_bundle(SOURCE, 0, 2 + WINDOW, (PrepareVote(bytes(32), Code.OK),)),
        structs.replace(BUNDLE, bundle=structs.replace(BUNDLE.bundle, records=(PrepareVote(bytes(32), Code.OK),) * 2)),
    ],
    ids=["for another shard", "too far ahead", "unproven"],
)
def test_what_is_not_kept_is_not_passed_on(bundle: CertifiedBundle) -> None:
    for member in range(4):
        assert passed_on(replica_of(NETWORK, member).on_message(SOURCE.electorate.keys[0], BundleDelivery(bundle), at(1))) == []


def test_nothing_is_asked_for_as_long_as_nothing_is_known_to_be_missing() -> None:
    replica = replica_of(NETWORK, 0)
    replica.on_message(SOURCE.electorate.keys[0], BundleDelivery(BUNDLE), at(1))
    assert ticking(replica, 50, 20 * HEARTBEAT) == []


def test_who_brought_a_bundle_is_told_when_it_is_taken_and_who_brings_it_again_too() -> None:
    network = Network(committees=3)
    home = network.shard_of(network.issuers["USD"])
    there = next(shard for shard in network.shards if shard is not home)
    home.add(network.pay(network.issuers["USD"], network.person(there.number), 5))
    (bundle,) = home.outboxes[0]
    there.add(bundles=[bundle])
    replica, (first, second, third, _) = replica_of(network, 0, number=there.number), home.electorate.keys
    replica.start(at(0))
    for peer in (first, second):
        assert not requests(replica.on_message(peer, BundleDelivery(bundle), at(1)))
    taken = BundleRequest(there.number, 2)
    assert requests(make_final(replica, there)) == [(first, taken), (second, taken)]
    later = forge_bundle(home, there.number, 2, (PrepareVote(bytes(32), Code.OK),))
    replica.on_message(KEYS[0], BundleDelivery(later), at(2))
    late = requests(replica.on_message(third, BundleDelivery(bundle), at(2)))
    assert late + ticking(replica, 50, 2 * HEARTBEAT) == [(third, structs.replace(taken, is_claim=True))], "what follows is here"


def test_what_was_lost_before_what_came_is_asked_for_and_a_lie_is_not_believed_for_ever() -> None:
    replica, source = replica_of(NETWORK, 0), SOURCE.electorate.keys
    liars = forge_bundle(SOURCE, 0, 1_000, (PrepareVote(bytes(32), Code.OK),))
    replica.on_message(source[0], BundleDelivery(liars), at(1))
    asked = ticking(replica, 50, 20 * HEARTBEAT)
    assert {request for _, request in asked} == {BundleRequest(0, 1)}
    assert sorted(peer for peer, _ in asked) == sorted(source), "each once"
    second = forge_bundle(SOURCE, 0, 2, (PrepareVote(bytes(32), Code.OK),))
    replica.on_message(source[0], BundleDelivery(second), at(20 * HEARTBEAT))
    assert len(ticking(replica, 20 * HEARTBEAT, 30 * HEARTBEAT)) > 10, "it is here, so what comes before it exists"


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
    courier, *others = home.electorate.keys
    asked = [(peer, request) for peer, request in requests(make_final(replica, there)) if peer != courier]
    assert [request for _, request in asked] == [BundleRequest(there.number, sequence) for sequence in wanted]
    assert all(peer in others for peer, _ in asked)
    assert not requests(replica.on_tick(at(2))), "once"
