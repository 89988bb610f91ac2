"""The node's mind: from a seat to a replica, and what a restart believes."""

import pytest
from msgspec import structs

from node.effects import AcceptDocument, Ban, ChainEffect, In, Journal, Meet, NodeEffect, Pledge, Recover, Send, Subscribe, Tell
from node.events import Bulletined, Event, For, Recovered, Stored, Tick
from node.ledger.state import State
from node.network.events import Message, PeerDown, PeerUp
from node.node import LOOK_INTERVAL, REST_INTERVAL, Node
from node.protocol.chain import Chain
from node.protocol.codec import encode
from node.protocol.epoch import (
    Announcement,
    Opening,
    PhaseNotice,
    Readiness,
    SignedDocument,
    Want,
    Wish,
    first_document,
    readiness_statement,
)
from node.protocol.genesis import Phase
from node.protocol.messages import Frame, PeerMessage, Standing
from tests.chains import Network, key
from tests.successions import succession
from tests.unit.replicas import at

NETWORK = Network(committees=1, block_difficulty_bits=0)
CHAIN = Chain(1, 0)
KEYS = NETWORK.shards[0].electorate.keys
SIGNED, OPENING = NETWORK.signed, NETWORK.opening
KEY = NETWORK.shards[0].members[0]
PLEDGE = Pledge(1, NETWORK.secrets[KEY.public], NETWORK.roll.hash)


def node(accepted: SignedDocument | Opening | None = None, pledge: Pledge | None = PLEDGE) -> Node:
    stored = Stored(bytes(32), accepted, (pledge,) if pledge is not None else ())
    return Node(NETWORK.genesis, KEY, "n", ("/ip4/127.0.0.1/tcp/1",), stored)


def says(phase: Phase) -> Message:
    return Message(NETWORK.coordinator.public, encode(NETWORK.announcement(phase)))


def plain(effects: list[NodeEffect]) -> list[NodeEffect | ChainEffect]:
    """Those of chains among the others."""
    return [effect.effect if isinstance(effect, In) else effect for effect in effects]


def kinds(effects: list[NodeEffect]) -> list[type[NodeEffect | ChainEffect]]:
    return [type(effect) for effect in plain(effects)]


def framed(message: PeerMessage, chain: Chain = CHAIN) -> bytes:
    return encode(Frame(chain.epoch, chain.shard, message))


def recover(mind: Node, effects: list[NodeEffect], pledge: Pledge | None = PLEDGE) -> list[NodeEffect]:
    ((chain, wanted),) = [(e.chain, e.effect) for e in effects if isinstance(e, In) and isinstance(e.effect, Recover)]
    return mind.handle(For(chain, Recovered(State.genesis(wanted.rules), None, (), pledge=pledge)), at(1))


def test_a_seat_is_persisted_before_peers_are_met_and_mining_before_the_ledger_is_brought_back() -> None:
    mind = node()
    assert mind.start() == []
    effects = mind.handle(says(Phase.ASSIGNMENT), at(0))
    assert kinds(effects)[0] is AcceptDocument
    assert Meet in kinds(effects)
    effects = mind.handle(says(Phase.MINING), at(0))
    assert effects[:2] == [In(CHAIN, PLEDGE), AcceptDocument(OPENING)], "its secret goes where its votes will be"
    assert Subscribe(CHAIN, entries=True) in recover(mind, effects)
    assert mind.replica is not None


def test_what_is_kept_of_an_opening_is_as_good_at_the_next_start_whatever_signature_came_with_it() -> None:
    unsigned = structs.replace(OPENING, signed=structs.replace(SIGNED, signature=bytes(64)))
    mind = node()
    mind.handle(says(Phase.ASSIGNMENT), at(0))
    said = structs.replace(NETWORK.announcement(Phase.MINING), content=unsigned)
    effects = mind.handle(Message(NETWORK.coordinator.public, encode(said)), at(0))
    (stored,) = [effect.accepted for effect in effects if isinstance(effect, AcceptDocument)]
    assert stored == OPENING
    assert node(stored).membership.begun


def test_a_stored_document_that_is_damaged_is_as_good_as_none_and_comes_again() -> None:
    damaged = structs.replace(OPENING, signed=structs.replace(SIGNED, signature=SIGNED.signature[::-1]))
    mind = node(damaged, pledge=None)
    assert mind.start() == []
    effects = mind.handle(says(Phase.MINING), at(0))
    assert AcceptDocument(OPENING) in effects
    assert Recover in kinds(effects)


def test_one_replica_is_made_however_often_the_coordinator_speaks_meanwhile() -> None:
    """Two with one key would sign what contradicts each other."""
    mind = node(OPENING)
    effects = mind.start()
    for _ in range(3):
        effects += mind.handle(says(Phase.MINING), at(0))
    assert kinds(effects).count(Recover) == 1


@pytest.mark.parametrize(
    ("accepted", "starts"), [(OPENING, True), (SIGNED, False), (None, False)], ids=["mining", "assigned", "no document"]
)
def test_a_restart_starts_the_replica_only_if_its_document_is_in_force(
    accepted: SignedDocument | Opening | None, starts: bool
) -> None:
    effects = node(accepted).start()
    assert (Recover in kinds(effects)) == starts
    assert (Meet in kinds(effects)) == (accepted is not None)


@pytest.mark.parametrize(
    ("pledge", "votes"),
    [(PLEDGE, True), (None, False), (Pledge(1, bytes(32), NETWORK.roll.hash), False)],
    ids=["its own database", "a new one", "one that registered anew"],
)
def test_a_member_votes_only_with_the_database_that_registered(pledge: Pledge | None, votes: bool) -> None:
    mind = node(OPENING, None)
    recover(mind, mind.start(), pledge)
    assert mind.replica is not None
    assert mind.deadline is not None
    journaled = [kind for step in range(3) for kind in kinds(mind.handle(Tick(), at(mind.deadline + step * 10_000)))]
    assert (Journal in journaled) == votes


def test_a_node_looks_around_rarely_and_soon_once_the_epoch_is_known_to_be_over() -> None:
    network = Network(standby=4)
    nodes, first = list(network.nodes.values()), network.document
    second = succession(network, first, nodes).next_document(first, network.genesis.parameters)
    mind = Node(network.genesis, key("nobody"), "nobody", (), Stored(bytes(32), network.opening))
    mind.start()
    mind.handle(Tick(), at(0))
    assert mind.deadline == REST_INTERVAL
    mind.handle(Bulletined(encode(succession(network, second, nodes).closings[0])), at(100))
    assert mind.deadline == 100 + LOOK_INTERVAL


@pytest.mark.parametrize("pledge", [None, Pledge(1, bytes(32), NETWORK.roll.hash)], ids=["none", "another"])
def test_the_pledge_that_a_seat_does_not_commit_to_is_not_put_with_the_votes(pledge: Pledge | None) -> None:
    mind = node(SIGNED, pledge)
    mind.start()
    assert Pledge not in kinds(mind.handle(says(Phase.MINING), at(0)))


def test_a_frame_is_for_the_chain_that_it_names() -> None:
    mind = node(OPENING)
    recover(mind, mind.start())
    assert mind.replica is not None
    heard = mind.replica.catching_up
    for chain in (Chain(1, 1), Chain(2, 0)):
        mind.handle(Message(KEYS[1], framed(Standing(7, 1), chain)), at(1))
        assert heard.target == 0
    mind.handle(Message(KEYS[1], framed(Standing(7, 1))), at(1))
    assert heard.target == 7


def test_what_answers_another_chain_is_none_to_this_one() -> None:
    mind = node(OPENING)
    (asked,) = [effect for effect in mind.start() if isinstance(effect, In)]
    assert isinstance(asked.effect, Recover)
    recovered = Recovered(State.genesis(asked.effect.rules), None, ())
    assert not any(isinstance(effect, In) for effect in mind.handle(For(Chain(2, 0), recovered), at(1)))
    assert mind.replica is None
    mind.handle(For(CHAIN, recovered), at(1))
    assert list(mind.replicas) == [CHAIN]


def test_the_own_committee_is_met_and_others_are_known_also_of_a_later_attempt() -> None:
    mind = node(SIGNED)
    (first,) = [effect for effect in mind.start() if isinstance(effect, Meet)]
    roll = NETWORK.roll_of([NETWORK.register(i, pair, 2) for i, pair in enumerate(NETWORK.nodes.values())], attempt=2)
    second = NETWORK.sign_document(first_document(NETWORK.genesis, roll, NETWORK.secrets))
    notice = PhaseNotice(NETWORK.genesis.network, 1, 2, Phase.ASSIGNMENT, 0, 4).signed(NETWORK.coordinator)
    frame = Message(NETWORK.coordinator.public, encode(Announcement(notice, second)))
    (later,) = [effect for effect in mind.handle(frame, at(0)) if isinstance(effect, Meet)]
    assert Meet not in kinds(mind.handle(frame, at(0)))
    for meet, document in ((first, SIGNED.document), (later, second.document)):
        seat = document.seat_of(KEY.public)
        assert seat is not None
        assert meet == Meet((document.committees[seat[0]],), tuple(c for c in document.committees if c.shard != seat[0]))
    assert first != later


def test_readiness_is_told_once_a_quorum_can_be_reached() -> None:
    mind, ready = node(), Tell(Readiness(SIGNED.document.hash, KEY.sign(readiness_statement(SIGNED.document.hash))))
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
    mind = node(OPENING)
    effects = mind.start()
    mind.handle(PeerUp(KEYS[2]), at(0))
    assert KEYS[2] in [effect.peer for effect in plain(recover(mind, effects)) if isinstance(effect, Send)]


def test_a_peer_that_sends_what_is_no_message_is_banned() -> None:
    mind = node(OPENING)
    recover(mind, mind.start())
    (ban,) = mind.handle(Message(KEYS[1], b"junk"), at(1))
    assert isinstance(ban, Ban)
    assert ban.peer == KEYS[1]


def test_a_member_tells_the_coordinator_that_it_would_leave_and_does_not_end_while_it_has_a_seat() -> None:
    mind = node(OPENING)
    recover(mind, mind.start())
    assert Tell not in kinds(mind.handle(says(Phase.MINING), at(1)))
    mind.leave()
    assert Tell(Wish(1, Want.LEAVE)) in mind.handle(says(Phase.MINING), at(2))
    assert not mind.has_left


def test_a_member_that_may_not_vote_tells_the_coordinator() -> None:
    mind = node(OPENING, None)
    recover(mind, mind.start(), None)
    assert Tell(Wish(1, Want.SIT_OUT)) in mind.handle(says(Phase.MINING), at(1))
