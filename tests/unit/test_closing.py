"""The end of a chain: the closing block is final everywhere in the end, and nothing comes after it."""

from random import Random

import pytest

from node.effects import Broadcast, Effect, Send, SendBlocks
from node.protocol.block import payload_root
from node.protocol.certificate import CertifiedHeader, VoteKind, sign_vote
from node.protocol.change import Bulletin, RegisterPhase, Stage
from node.protocol.channel import PrepareVote
from node.protocol.codec import decode, encode
from node.protocol.codes import Code
from node.protocol.limits import MAX_BROKER_BODY_BYTES
from node.protocol.messages import (
    Ballot,
    BundleDelivery,
    BundleName,
    BundleRequest,
    Certified,
    ChainRequest,
    CheckpointRequest,
    PeerMessage,
    Standing,
)
from node.protocol.topics import bulletins_topic
from node.replica.replica import Replica
from tests.chains import Network, key
from tests.unit.entries import call
from tests.unit.replicas import at, forge_bundle, make_final, replica_of
from tests.unit.wired import Committee

NETWORK = Network(committees=1, epoch_pause=2_000)
HEARTBEAT = NETWORK.genesis.parameters.heartbeat
SHARD = NETWORK.shards[0]
PEERS = SHARD.electorate.keys
GUEST, STRANGER = key("guest").public, key("stranger").public


def close(committee: Committee) -> Committee:
    committee.change_until(RegisterPhase.CLOSED)
    committee.run(lambda: all(replica.is_closed for _, replica in committee.up))
    return committee


def check_closed(committee: Committee) -> None:
    """All have the same closing block, and nothing after it."""
    assert len({replica.closing.header.hash for _, replica in committee.up if replica.closing is not None}) == 1
    for member, replica in committee.up:
        assert replica.is_closed
        assert len(committee.disks[member].blocks) == replica.state.height == replica.state.change.closed


def told_by(committee: Committee) -> list[tuple[int, Bulletin]]:
    """What each member published of the change."""
    topic = bulletins_topic(NETWORK.genesis.network)
    found = [(member, publish.body) for member, publish in committee.published if publish.topic == topic]
    return [(member, decode(Bulletin, body, MAX_BROKER_BODY_BYTES)) for member, body in found]


def first(committee: Committee) -> Replica:
    return committee.up[0][1]


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_all_members_close_with_one_block_and_store_none_after_it(loss: float) -> None:
    committee = close(Committee(NETWORK, loss=loss))
    committee.run_for(10 * HEARTBEAT)
    check_closed(committee)


def test_once_all_have_closed_nobody_says_so_any_more_until_one_comes_back() -> None:
    """A chain that is over costs nothing."""
    committee, later = close(Committee(NETWORK)), 10**9
    committee.run_for(3 * HEARTBEAT)
    for _, replica in committee.up:
        assert not any(isinstance(effect, Broadcast) for effect in replica.on_tick(at(later)))
    member = first(committee)
    member.on_message(PEERS[1], Standing(0, 0), at(later))
    assert any(isinstance(effect, Broadcast) for effect in member.on_tick(at(later + HEARTBEAT)))


@pytest.mark.parametrize("seed", range(4))
def test_members_close_that_are_restarted_again_and_again(seed: int) -> None:
    committee, random = Committee(NETWORK, loss=0.3, seed=seed), Random(seed)

    def are_closed() -> bool:
        if random.random() < 0.02:
            committee.start(random.randrange(4))
        return committee.phase is RegisterPhase.CLOSED and all(replica.is_closed for _, replica in committee.up)

    committee.change_until(RegisterPhase.SETTLEMENT)
    committee.run(are_closed, 600_000)
    check_closed(committee)


@pytest.mark.parametrize("is_new", [True, False], ids=["without anything", "after a restart"])
def test_a_member_that_was_down_closes_when_all_others_have(is_new: bool) -> None:
    committee = Committee(NETWORK, down=[3] if is_new else [])
    committee.change_until(RegisterPhase.HANDOFF)
    committee.stop(3)
    close(committee)
    committee.run_for(10 * HEARTBEAT)
    committee.published.clear()
    committee.start(3)
    committee.run(lambda: all(replica.is_closed for _, replica in committee.up))
    check_closed(committee)
    assert [bulletin.change.stage for _, bulletin in told_by(committee)] == [Stage.CLOSED], "the others told the rest"


def test_one_member_that_has_the_closing_block_final_is_enough() -> None:
    """No vote to finalize reaches any of the others, and no certificate."""
    committee = Committee(NETWORK)
    committee.change_until(RegisterPhase.SETTLEMENT)
    asked: set[int] = set()

    def is_lost(source: int, sink: int, message: PeerMessage) -> bool:
        asked.update([source] if isinstance(message, ChainRequest) else [])
        return sink != 2 and finalized_by(message) != []

    committee.is_lost = is_lost
    close(committee)
    check_closed(committee)
    assert asked == {0, 1, 3}


def test_blocks_between_the_closing_one_and_its_finality_are_empty() -> None:
    """No vote to finalize the closing block itself, or the next one, arrives; and there is a payment to be made."""
    committee = Committee(NETWORK)
    committee.change_until(RegisterPhase.SETTLEMENT)

    def is_lost(source: int, sink: int, message: PeerMessage) -> bool:
        first_view = min(closing_views(committee), default=1 << 62)
        return any(first_view <= view <= first_view + 1 for view in finalized_by(message))

    committee.is_lost = is_lost
    committee.run(lambda: bool(closing_views(committee)))
    committee.pay(NETWORK.pay(NETWORK.issuers["USD"], key("payee"), 5))
    committee.run(lambda: all(replica.is_closed for _, replica in committee.up))
    check_closed(committee)
    for _, replica in committee.up:
        closing = replica.closing
        assert closing is not None
        assert len(closing.finality.path) >= 1
        for header in closing.finality.path:
            assert (header.payload_root, header.change_hash) == (payload_root((), ()), closing.header.change_hash)


def closing_views(committee: Committee) -> list[int]:
    """Of blocks not final yet that close the chain."""
    return [
        proposal.block.header.view
        for _, replica in committee.up
        for known in replica.consensus.views.rounds.values()
        if (proposal := known.proposal) is not None
        and (after := replica.branches.after(proposal.vote.block)) is not None
        and after.change.closed == after.height
    ]


def finalized_by(message: PeerMessage) -> list[int]:
    """The views whose blocks it helps to make final."""
    match message:
        case Ballot(vote):
            return [vote.view] if vote.kind is VoteKind.FINALIZE else []
        case Certified(certificates):
            return [certificate.view for certificate in certificates if certificate.kind is VoteKind.FINALIZE]
    return []


# -- after it ----------------------------------------------------------------------------------------------------------


CLOSED = close(Committee(NETWORK))


def test_a_closed_chain_is_closed_after_a_restart_and_goes_on_to_serve() -> None:
    before = first(CLOSED)
    replica = CLOSED.start(0)
    assert replica.closing == before.closing
    assert replica.bulletin == before.bulletin
    effects = replica.on_message(PEERS[1], ChainRequest(1), at(CLOSED.now))
    assert effects == [SendBlocks(PEERS[1], 1)]


def test_a_closed_member_says_nothing_any_more_but_where_it_stands() -> None:
    replica = CLOSED.start(1)
    said: list[Effect] = replica.start(at(CLOSED.now))
    paid = NETWORK.pay(NETWORK.issuers["USD"], key("payee"), 5)
    said += replica.on_transactions([encode(paid)], at(CLOSED.now))
    said += replica.on_entries([encode(call(NETWORK))], at(CLOSED.now))
    vote = sign_vote(SHARD.members[2], 2, SHARD.electorate, VoteKind.NULLIFY, replica.consensus.view, bytes(32))
    said += replica.on_message(PEERS[2], Ballot(vote), at(CLOSED.now))
    now = CLOSED.now
    for _ in range(100):
        now = max(now + 1, replica.deadline)
        said += replica.on_tick(at(now))
    assert now >= CLOSED.now + 90 * HEARTBEAT, "it has no timers but its heartbeat"
    assert {type(effect.message) if isinstance(effect, Broadcast) else type(effect) for effect in said} == {Standing}


def test_who_brings_a_bundle_to_a_closed_shard_is_told_not_to_bring_it_again() -> None:
    network = Network(committees=2)
    shard, other = network.shards
    replica = replica_of(network, 0)
    bundle = forge_bundle(other, 0, 7, (PrepareVote(bytes(32), Code.OK),))
    replica.closing = CertifiedHeader(shard.head, bundle.finality)
    member = other.electorate.keys[3]
    effects = replica.on_message(member, BundleDelivery(bundle), at(1))
    assert Send(member, BundleRequest(0, 8, is_claim=True), 1) in effects
    assert not any(isinstance(e, Send) for e in replica.on_message(STRANGER, BundleDelivery(bundle), at(1)))


def test_the_last_bundles_of_a_closed_shard_are_delivered_until_they_are_taken() -> None:
    network = Network(committees=2)
    payer = network.shard_of(network.issuers["USD"])
    there = 1 - payer.number
    paid = network.pay(network.issuers["USD"], network.person(there), 5)
    payer.add(paid)
    replica = replica_of(network, 1, number=payer.number)
    effects = make_final(replica, payer)
    replica.closing = replica.last
    keys = network.shards[there].electorate.keys

    def brought(until: int) -> bool:
        found: list[Effect] = []
        while replica.deadline < until:
            found += replica.on_tick(at(replica.deadline))
        return any(isinstance(e, Send) and isinstance(e.message, BundleName) and e.peer in keys for e in found)

    assert any(isinstance(effect, Send) and isinstance(effect.message, BundleDelivery) for effect in effects)
    assert brought(10 * HEARTBEAT)
    for peer in keys[:2]:
        replica.on_message(peer, BundleRequest(there, 2, is_claim=True), at(10 * HEARTBEAT))
    assert not brought(20 * HEARTBEAT)


@pytest.mark.parametrize("is_closed", [False, True], ids=["mining", "closed"])
def test_a_guest_is_served_and_told_the_height_and_a_stranger_is_not(is_closed: bool) -> None:
    committee = CLOSED if is_closed else Committee(NETWORK)
    committee.run_for(5 * HEARTBEAT)
    replica = first(committee)
    replica.guests = frozenset([GUEST])
    now = committee.now + 1_000
    for peer, expected in ((GUEST, [SendBlocks, Send]), (STRANGER, [])):
        effects = replica.on_message(peer, ChainRequest(1), at(now))
        effects += replica.on_message(peer, Standing(0, 0), at(now))
        effects += replica.on_message(peer, CheckpointRequest(0), at(now))
        for_it = [effect for effect in effects if getattr(effect, "peer", None) == peer]
        assert [type(effect) for effect in for_it] == expected
        standings = [effect.message for effect in for_it if isinstance(effect, Send)]
        assert [getattr(standing, "height", None) for standing in standings] == [replica.state.height] * len(standings)
    replica.on_message(GUEST, Standing(1 << 40, 0), at(now))
    assert replica.catching_up.target < 1 << 40, "nobody asks a guest for blocks"


# -- bulletins ---------------------------------------------------------------------------------------------------------


def test_each_phase_is_told_by_the_proposer_and_f_more_and_the_closing_by_all() -> None:
    committee = close(Committee(NETWORK))
    told: dict[RegisterPhase, list[tuple[int, Bulletin]]] = {}
    for member, bulletin in told_by(committee):
        assert bulletin.is_valid(SHARD.electorate)
        assert bulletin.epoch == 1
        assert bulletin.change.register is not None
        told.setdefault(bulletin.change.register.phase, []).append((member, bulletin))
    tellers = {phase: {member for member, _ in news} for phase, news in told.items()}
    assert all(len(news) == len(tellers[phase]) for phase, news in told.items()), "each tells it once"
    for phase in (RegisterPhase.REVEAL, RegisterPhase.HANDOFF, RegisterPhase.SETTLEMENT):
        proposer = told[phase][0][1].header.proposer
        assert tellers[phase] == {proposer, (proposer + 1) % 4}
    assert tellers[RegisterPhase.CLOSED] == {0, 1, 2, 3}
    assert {bulletin.change.stage for _, bulletin in told[RegisterPhase.CLOSED]} == {Stage.CLOSED}


def test_the_bulletin_at_hand_is_what_the_last_final_block_proves() -> None:
    committee = Committee(NETWORK)
    replica = first(committee)
    assert replica.bulletin is None
    committee.change_until(RegisterPhase.REVEAL)
    committee.run(lambda: replica.state.change.register is not None)
    bulletin = replica.bulletin
    assert bulletin is not None
    assert bulletin.is_valid(SHARD.electorate)
    assert bulletin.change == replica.state.change
    assert bulletin.header.height == replica.state.height
    assert committee.start(0).bulletin == bulletin
