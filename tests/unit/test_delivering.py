"""What a shard sends to others: who sends it, to whom, when again, and until when."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import pytest

from node.effects import Commit, Effect, Publish, Send, SendBundles
from node.protocol.channel import Bundle, CertifiedBundle
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest
from node.replica.delivering import TURN, Delivering, first_hands
from node.replica.replica import Replica
from tests.chains import Network, Shard
from tests.unit.replicas import at, catch_up, make_final, replica_of

HEARTBEAT = Network(committees=3).genesis.parameters.heartbeat


def paying(payments: int = 1) -> tuple[Network, Shard, Shard]:
    """A shard that pays to another in each of so many blocks, and the other; there is a third."""
    network = Network(committees=3)
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    there = next(shard for shard in network.shards if shard is not home)
    for number in range(payments):
        home.add(network.pay(issuer, network.person(there.number, number), 5))
    return network, home, there


def sender(network: Network, home: Shard, member: int, now: int = 1) -> tuple[Replica, list[Effect]]:
    """A member for whom the shard's blocks have just become final, and what it did."""
    replica = replica_of(network, member, number=home.number)
    return replica, make_final(replica, home, now)


def deliveries(effects: list[Effect]) -> list[tuple[bytes, CertifiedBundle]]:
    return [(e.peer, e.message.bundle) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleDelivery)]


def answered(effects: list[Effect]) -> list[SendBundles]:
    return [effect for effect in effects if isinstance(effect, SendBundles)]


def named(effects: Iterable[Effect]) -> list[tuple[bytes, int | None, BundleName]]:
    return [(e.peer, e.shard, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleName)]


def ticking(replica: Replica, start: int, end: int) -> list[tuple[bytes, int | None, BundleName]]:
    """What is named again until then, in steps of 50 ms."""
    return [again for now in range(start, end, 50) for again in named(replica.on_tick(at(now)))]


def test_f_plus_one_members_in_turn_tell_the_same_f_plus_one_of_its_destination_and_the_first_brings_them_the_bundle() -> None:
    network, home, there = paying(4)
    senders: dict[bytes, list[int]] = {}
    bringers: list[int] = []
    for member in range(4):
        _, effects = sender(network, home, member)
        for (bundle,) in home.outboxes:
            name = BundleName(home.number, bundle.bundle.sequence)
            brought = [peer for peer, other in deliveries(effects) if other == bundle]
            told = [peer for peer, shard, other in named(effects) if (shard, other) == (there.number, name)]
            if peers := brought or told:
                assert tuple(peers) == first_hands(bundle.bundle, there.electorate)
                assert len(set(peers)) == 2
                senders.setdefault(bundle.header.hash, []).append(member)
                bringers += [member] if brought else []
    assert [len(members) for members in senders.values()] == [2] * 4
    assert Counter(chain(*senders.values())) == dict.fromkeys(range(4), 2), "each as often"
    assert sorted(bringers) == [0, 1, 2, 3], "of each bundle one"


def test_each_member_of_a_destination_is_among_the_first_hands_as_often() -> None:
    _, _, there = paying()
    count = dict.fromkeys(there.electorate.keys, 0)
    for sequence in range(1, 8 * TURN + 1):
        for key in first_hands(Bundle(0, there.number, sequence, ()), there.electorate):
            count[key] += 1
    assert set(count.values()) == {4 * TURN}


def test_who_catches_up_sends_no_bundles_of_blocks_that_were_final_before() -> None:
    """After a new disk these are all that the shard ever sent."""
    network, home, _ = paying(12)
    for member in range(4):
        effects = catch_up(replica_of(network, member, number=home.number), home)
        assert [e.height for e in effects if isinstance(e, Commit)] == list(range(1, 13))
        assert not deliveries(effects)
        assert not [effect for effect in effects if isinstance(effect, Publish)]


@pytest.mark.parametrize("is_news", [True, False], ids=["sent", "adopted"])
def test_what_is_not_taken_within_a_heartbeat_and_a_half_is_named_again_to_others_and_others(is_news: bool) -> None:
    network, home, there = paying()
    again: list[tuple[bytes, int | None, BundleName]] = []
    for member in range(4):
        replica = replica_of(network, member, number=home.number)
        (make_final if is_news else catch_up)(replica, home)
        assert not ticking(replica, 50, HEARTBEAT - 50), "it is on its way"
        again += ticking(replica, HEARTBEAT - 50, 2 * HEARTBEAT - 100)
    assert {(shard, name) for _, shard, name in again} == {(there.number, BundleName(home.number, 1))}
    assert len(again) == 4, "f + 1 members to f + 1"
    replica, _ = sender(network, home, (home.chain[0].block.header.height) % 4)
    found = ticking(replica, 50, 6 * HEARTBEAT)
    assert 8 <= len(found) <= 12
    assert {peer for peer, _, _ in found} == set(there.electorate.keys)


def claim(replica: Replica, peer: bytes, destination: int, sequence: int, now: int) -> list[Effect]:
    return replica.on_message(peer, BundleRequest(destination, sequence), at(now))


def test_what_f_plus_one_members_of_the_destination_have_taken_is_not_sent_again_and_forgotten() -> None:
    network, home, there = paying()
    replica, _ = sender(network, home, 1)
    liar, *others = there.electorate.keys
    for _ in range(3):
        claim(replica, liar, there.number, 2, 2)
    stranger = network.shards[3 - home.number - there.number].electorate.keys[0]
    claim(replica, stranger, there.number, 2, 2)
    assert ticking(replica, 50, 2 * HEARTBEAT), "one may lie, and who is of another shard does not count"
    claim(replica, others[0], there.number, 2, 2 * HEARTBEAT)
    assert not ticking(replica, 2 * HEARTBEAT, 6 * HEARTBEAT)
    home.add(network.pay(network.issuers["USD"], network.person(there.number), 6))
    commits = [e for e in make_final(replica, home, 6 * HEARTBEAT) if isinstance(e, Commit)]
    assert [commit.taken for commit in commits] == [((there.number, 1),)]


def test_a_channel_on_which_nothing_is_under_way_costs_nothing() -> None:
    network, home, there = paying()
    replica, _ = sender(network, home, 1)
    for peer in there.electorate.keys[:2]:
        claim(replica, peer, there.number, 2, 2)
    effects = [effect for now in range(50, 20 * HEARTBEAT, 50) for effect in replica.on_tick(at(now))]
    foreign = {key for shard in network.shards if shard is not home for key in shard.electorate.keys}
    assert not [e for e in effects if isinstance(e, Send | SendBundles) and e.peer in foreign]


def test_after_a_start_all_that_is_stored_is_seen_to() -> None:
    network, home, there = paying(3)
    for member in range(4):
        replica = replica_of(network, member, number=home.number)
        catch_up(replica, home)
        state = replica.state
        again = Delivering(home.number, member, network.document.electorates, state, {there.number: 2}, 100)
        found = [effect for now in range(0, 1_000, 100) for effect in again.poll(now)]
        assert {(a.shard, a.message) for a in found} == {(there.number, BundleName(home.number, 2))}
        none = Delivering(home.number, member, network.document.electorates, state, {}, 100)
        assert not [effect for now in range(0, 1_000, 100) for effect in none.poll(now)]


def test_who_asks_for_what_has_just_been_sent_gets_it_later() -> None:
    network, home, there = paying()
    replica, _ = sender(network, home, 0, now=1_000)
    peer = there.electorate.keys[0]
    assert not answered(claim(replica, peer, there.number, 1, 1_100))
    claimed = BundleRequest(there.number, 1, is_claim=True)
    assert not answered(replica.on_message(there.electorate.keys[1], claimed, at(1_000 + HEARTBEAT // 2))), "nothing is asked for"
    (answer,) = answered(claim(replica, peer, there.number, 1, 1_000 + HEARTBEAT // 2))
    assert (answer.peer, answer.sequence, answer.is_alone) == (peer, 1, False)
