"""The node's mind: from a seat to a replica, and what a restart believes."""

import pytest

from node.effects import Abstain, AcceptDocument, Ban, Begin, Effect, Journal, Meet, Recover, Send, Subscribe, Tell
from node.events import Event, Recovered, Stored, Tick
from node.ledger.state import State
from node.network.events import Message, PeerDown, PeerUp
from node.node import Node
from node.protocol.codec import encode
from node.protocol.epoch import Readiness
from node.protocol.genesis import Phase
from tests.chains import Network
from tests.unit.replicas import at

NETWORK = Network(committees=1, block_difficulty_bits=0)
KEYS = NETWORK.shards[0].electorate.keys
SIGNED = NETWORK.signed


def node(stored: Stored = Stored()) -> Node:
    return Node(NETWORK.genesis, NETWORK.shards[0].members[0], "n", ("/ip4/127.0.0.1/tcp/1",), stored)


def says(phase: Phase) -> Message:
    return Message(NETWORK.coordinator.public, encode(NETWORK.announcement(phase, assigned=phase is not Phase.REGISTRATION)))


def kinds(effects: list[Effect]) -> list[type[Effect]]:
    return [type(effect) for effect in effects]


def recover(mind: Node, effects: list[Effect]) -> list[Effect]:
    (wanted,) = [effect for effect in effects if isinstance(effect, Recover)]
    return mind.handle(Recovered(State.genesis(wanted.rules), None, ()), at(1))


def test_a_seat_is_persisted_before_peers_are_met_and_mining_before_the_ledger_is_brought_back() -> None:
    mind = node()
    assert mind.start() == []
    assert kinds(mind.handle(says(Phase.ASSIGNMENT), at(0)))[:2] == [Abstain, AcceptDocument]
    effects = mind.handle(says(Phase.MINING), at(0))
    assert kinds(effects)[0] is Begin
    assert Subscribe(0) in recover(mind, effects)
    assert mind.replica is not None


def test_one_replica_is_made_however_often_the_coordinator_speaks_meanwhile() -> None:
    """Two with one key would sign what contradicts each other."""
    mind = node(Stored(SIGNED, True, 0))
    effects = mind.start()
    for _ in range(3):
        effects += mind.handle(says(Phase.MINING), at(0))
    assert kinds(effects).count(Recover) == 1


@pytest.mark.parametrize(
    ("stored", "starts"),
    [
        (Stored(SIGNED, True, 0), True),
        (Stored(SIGNED, False, 0), False),
        (Stored(SIGNED, False, None), True),
        (Stored(None, True, 0), False),
        (Stored(), False),
    ],
    ids=["mining", "assigned", "a new database under a known document", "no document", "new"],
)
def test_a_restart_starts_the_replica_only_if_mining_may_have_begun(stored: Stored, starts: bool) -> None:
    effects = node(stored).start()
    assert (Recover in kinds(effects)) == starts
    assert (Meet in kinds(effects)) == (stored.document is not None)


@pytest.mark.parametrize("late", [True, False], ids=["mining has begun before it heard of its seat", "a new database"])
def test_a_member_that_may_have_lost_votes_does_not_vote_before_others_have_spoken(late: bool) -> None:
    mind = node(Stored() if late else Stored(SIGNED, False, None))
    effects = mind.handle(says(Phase.MINING), at(0)) if late else mind.start()
    assert Abstain not in kinds(effects), "its votes are not known to be safe"
    recover(mind, effects)
    assert mind.deadline is not None
    assert Journal not in kinds(mind.handle(Tick(), at(mind.deadline + 10_000)))


def test_a_new_database_under_a_known_document_stores_that_mining_has_begun() -> None:
    """Else the next restart, no longer new, would wait for the coordinator."""
    assert [kind for kind in kinds(node(Stored(SIGNED, False, None)).start()) if kind in (Begin, Recover)] == [Begin, Recover]
    assert Begin not in kinds(node(Stored(SIGNED, True, 0)).start())


def test_readiness_is_told_once_a_quorum_can_be_reached() -> None:
    mind, ready = node(), Tell(Readiness(1, 0))
    mind.handle(says(Phase.ASSIGNMENT), at(0))
    mind.handle(PeerUp(KEYS[1]), at(0))
    mind.handle(says(Phase.HANDOFF), at(0))
    mind.handle(PeerDown(KEYS[1]), at(0))
    assert ready not in mind.handle(PeerUp(KEYS[2]), at(0)), "one went, one came"
    assert ready in mind.handle(PeerUp(KEYS[3]), at(0)), "2 others and itself are 2f+1"


def test_a_quorum_that_was_reached_before_the_handoff_and_is_gone_is_no_readiness() -> None:
    mind = node()
    effects = mind.handle(says(Phase.ASSIGNMENT), at(0))
    events: list[Event] = [*map(PeerUp, KEYS[1:]), *map(PeerDown, KEYS[1:]), says(Phase.HANDOFF)]
    for event in events:
        effects += mind.handle(event, at(0))
    assert not [effect for effect in effects if isinstance(effect, Tell) and isinstance(effect.message, Readiness)]


def test_a_new_replica_tells_its_standing_to_who_is_connected_already() -> None:
    mind = node(Stored(SIGNED, True, 0))
    effects = mind.start()
    mind.handle(PeerUp(KEYS[2]), at(0))
    assert KEYS[2] in [effect.peer for effect in recover(mind, effects) if isinstance(effect, Send)]


def test_a_peer_that_sends_what_is_no_message_is_banned() -> None:
    mind = node(Stored(SIGNED, True, 0))
    recover(mind, mind.start())
    (ban,) = mind.handle(Message(KEYS[1], b"junk"), at(1))
    assert isinstance(ban, Ban)
    assert ban.peer == KEYS[1]
