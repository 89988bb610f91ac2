"""Bundles that are named: when they are asked for, of whom, and what names can make a member keep."""

import pytest

from node.effects import Effect, Send, SendBundles
from node.protocol.channel import PrepareVote
from node.protocol.codes import Code
from node.protocol.messages import BundleDelivery, BundleName, BundleRequest, BundleWanted, PeerMessage
from node.replica import serving
from node.replica.delivering import first_hands
from node.replica.inbox import WINDOW
from node.replica.replica import Replica
from tests.chains import Network, key
from tests.unit.replicas import at, forge_bundle, make_final, replica_of

NETWORK = Network(committees=3)
HERE, SOURCE = NETWORK.shards[0], NETWORK.shards[1]
OWN, THEIRS = HERE.electorate.keys, SOURCE.electorate.keys
BUNDLE = forge_bundle(SOURCE, 0, 1, (PrepareVote(bytes(32), Code.OK),))
MEMBER = next(i for i, key in enumerate(OWN) if key not in first_hands(BUNDLE.bundle, HERE.electorate))
NAME, WANTED = BundleName(1, 1), BundleWanted(1, 0, 1)
HEARTBEAT = NETWORK.genesis.parameters.heartbeat
PATIENCE = 60


def wanted(effects: list[Effect]) -> list[tuple[bytes, int | None, BundleWanted]]:
    return [(e.peer, e.shard, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleWanted)]


def ticking(replica: Replica, start: int, end: int) -> list[tuple[int, bytes]]:
    """Who is asked for what was named, and when, if it is called when it asked for that."""
    found, now = list[tuple[int, bytes]](), start
    while now < end:
        found += [(now, peer) for peer, _, _ in wanted(replica.on_tick(at(now)))]
        now = max(now + 1, min(replica.deadline, end))
    return found


def told(*names: tuple[bytes, PeerMessage]) -> Replica:
    replica = replica_of(NETWORK, MEMBER)
    replica.start(at(0))
    for peer, name in names:
        assert not wanted(replica.on_message(peer, name, at(1)))
    return replica


def test_what_is_named_and_not_brought_is_asked_for_of_one_after_the_other_and_then_of_its_source() -> None:
    replica = told((THEIRS[2], NAME), (OWN[0], NAME), (THEIRS[2], NAME), (OWN[1], NAME))
    asked = ticking(replica, 2, HEARTBEAT // 2)
    assert asked == [(1 + PATIENCE, THEIRS[2]), (1 + 2 * PATIENCE, OWN[0]), (1 + 3 * PATIENCE, OWN[1])]
    effects = [effect for now in range(HEARTBEAT // 2, 2 * HEARTBEAT, 50) for effect in replica.on_tick(at(now))]
    requests = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, BundleRequest)]
    assert requests[0] == BundleRequest(0, 1), "as for any gap"


def test_what_is_named_and_has_no_room_here_is_asked_for_as_any_gap() -> None:
    replica = told((THEIRS[2], BundleName(1, 1 + WINDOW)))
    effects = [effect for now in range(2, 2 * HEARTBEAT, 50) for effect in replica.on_tick(at(now))]
    requests = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, BundleRequest)]
    assert requests[0] == BundleRequest(0, 1)


def test_each_is_asked_as_what_it_is_a_member_of() -> None:
    replica = told((THEIRS[2], NAME), (OWN[0], NAME))
    assert [shard for now in range(2, 200) for _, shard, _ in wanted(replica.on_tick(at(now)))] == [1, 0]


def test_what_is_brought_in_time_is_not_asked_for_nor_what_is_here() -> None:
    replica = told((THEIRS[2], NAME))
    replica.on_message(OWN[0], BundleDelivery(BUNDLE), at(PATIENCE))
    assert ticking(replica, PATIENCE, HEARTBEAT) == []
    replica.on_message(OWN[1], NAME, at(HEARTBEAT))
    assert ticking(replica, HEARTBEAT, 2 * HEARTBEAT) == []


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (key("stranger").public, NAME),
        (NETWORK.shards[2].electorate.keys[0], NAME),
        (OWN[0], BundleName(0, 1)),
        (OWN[0], BundleName(7, 1)),
        (THEIRS[0], BundleName(1, 1 + WINDOW)),
    ],
    ids=["a stranger", "another shard", "a channel to itself", "no such shard", "too far ahead"],
)
def test_names_that_are_not_heard(peer: bytes, name: BundleName) -> None:
    assert ticking(told((peer, name)), 2, 10 * PATIENCE) == []


def test_names_make_a_member_keep_no_more_than_the_bundles_would() -> None:
    replica = told(*((peer, BundleName(1, sequence)) for peer in OWN + THEIRS for sequence in range(1, 1000)))
    asked = ticking(replica, 2, 100 * PATIENCE)
    assert len(asked) == WINDOW * (len(OWN) + len(THEIRS))
    assert not replica._collecting._naming._named


def test_who_named_a_bundle_is_told_when_it_is_taken() -> None:
    network = Network(committees=3)
    home = network.shard_of(network.issuers["USD"])
    there = next(shard for shard in network.shards if shard is not home)
    home.add(network.pay(network.issuers["USD"], network.person(there.number), 5))
    there.add(bundles=home.outboxes[0])
    replica, (first, second, *_) = replica_of(network, 0, number=there.number), home.electorate.keys
    replica.start(at(0))
    replica.on_message(first, BundleName(home.number, 1), at(1))
    effects = make_final(replica, there)
    effects += replica.on_message(second, BundleName(home.number, 1), at(1_000))
    effects += replica.on_tick(at(1_000 + HEARTBEAT))
    claims = [(e.peer, e.message.sequence) for e in effects if isinstance(e, Send) and isinstance(e.message, BundleRequest)]
    assert claims == [(first, 2), (second, 2)]


def test_a_member_gives_its_committee_what_it_was_brought_and_a_destination_what_its_shard_sends() -> None:
    replica = replica_of(NETWORK, MEMBER)
    replica.on_message(THEIRS[0], BundleDelivery(BUNDLE), at(1))
    assert replica.on_message(OWN[0], WANTED, at(2)) == [Send(OWN[0], BundleDelivery(BUNDLE))]
    network = Network(committees=3)
    home = network.shard_of(network.issuers["USD"])
    there = next(shard for shard in network.shards if shard is not home)
    home.add(network.pay(network.issuers["USD"], network.person(there.number), 5))
    sender, peer = replica_of(network, 0, number=home.number), there.electorate.keys[0]
    make_final(sender, home)
    asked = BundleWanted(home.number, there.number, 1)
    assert sender.on_message(peer, asked, at(50)) == [SendBundles(peer, there.number, 1, is_alone=True)]


def test_of_what_was_sent_long_ago_one_is_given_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the bundles in needs the last ones only; all there ever were would be a lot to read."""
    monkeypatch.setattr(serving, "WINDOW", 2)
    network = Network(committees=2)
    home = network.shard_of(network.issuers["USD"])
    there = network.shards[1 - home.number]
    for amount in range(1, 6):
        home.add(network.pay(network.issuers["USD"], network.person(there.number), amount))
    sender, peer = replica_of(network, 0, number=home.number), there.electorate.keys[0]
    make_final(sender, home)
    given = [bool(sender.on_message(peer, BundleWanted(home.number, there.number, n), at(50))) for n in (1, 2, 3, 4, 5, 4)]
    assert given == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("peer", "asked"),
    [
        (THEIRS[0], WANTED),
        (key("stranger").public, WANTED),
        (OWN[0], BundleWanted(1, 0, 2)),
        (OWN[0], BundleWanted(0, 0, 1)),
        (OWN[0], BundleWanted(2, 0, 1)),
        (THEIRS[0], BundleWanted(0, 1, 1)),
    ],
    ids=["its source", "a stranger", "not here", "no channel", "another channel", "not sent yet"],
)
def test_what_is_not_given(peer: bytes, asked: BundleWanted) -> None:
    replica = replica_of(NETWORK, MEMBER)
    replica.start(at(0))
    replica.on_message(THEIRS[0], BundleDelivery(BUNDLE), at(1))
    assert replica.on_message(peer, asked, at(2)) == []


def test_each_bundle_is_given_to_one_peer_at_once_and_again_once_in_a_while() -> None:
    replica = replica_of(NETWORK, MEMBER)
    for sequence in (1, 2, WINDOW):
        later = forge_bundle(SOURCE, 0, sequence, (PrepareVote(bytes(32), Code.OK),))
        replica.on_message(THEIRS[0], BundleDelivery(later), at(1))
    served = [(2, 200), (1, 201), (2, 202), (1, 203), (WINDOW, 301), (2, 301), (1, 302), (1, 401)]
    given = [len(replica.on_message(OWN[0], BundleWanted(1, 0, sequence), at(now))) for sequence, now in served]
    assert given == [1, 1, 1, 0, 1, 0, 1, 0]
