"""What a member answers other nodes, how often, and whom."""

import pytest
from msgspec import structs

from node.effects import Commit, Effect, Send, SendBlocks, SendBundles
from node.protocol.certificate import VoteKind
from node.protocol.codec import encode
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import (
    BodyReply,
    BodyRequest,
    BundleRequest,
    Certified,
    ChainRequest,
    PeerMessage,
    Standing,
    TransactionsReply,
    TransactionsRequest,
)
from node.replica.replica import Replica
from tests.chains import Network, key
from tests.unit.replicas import at, catch_up, proposals, replica_of, signed, take_in

NETWORK = Network()
ISSUER = NETWORK.issuers["USD"]
HOME = NETWORK.shard_of(ISSUER)
THERE = NETWORK.shards[1 - HOME.number]
HOME.add(NETWORK.pay(ISSUER, NETWORK.person(THERE.number), 5))  # sends a bundle
PEER, FOREIGN = HOME.electorate.keys[1], THERE.electorate.keys[1]
NULLIFIED = HOME.certificate(VoteKind.NULLIFY, 2, ZERO_HASH)


def member_at_height_1() -> tuple[Replica, bytes]:
    """The leader of view 3, and the hash of the block that it proposes there."""
    replica = replica_of(NETWORK, 3, number=HOME.number)
    catch_up(replica, HOME)
    replica.on_message(PEER, Certified((NULLIFIED,)), at(3))
    take_in(replica, NETWORK.pay(ISSUER, NETWORK.person(HOME.number), 5))
    (proposal,) = proposals(replica.on_tick(at(500)))
    return replica, proposal.block.header.hash


def answers(effects: list[Effect]) -> list[Effect]:
    wanted = (SendBlocks, SendBundles)
    messages = BodyReply | Certified | TransactionsReply
    return [e for e in effects if isinstance(e, wanted) or (isinstance(e, Send) and isinstance(e.message, messages))]


@pytest.mark.parametrize(
    ("peer", "kind"),
    [(PEER, "chain"), (PEER, "body"), (PEER, "transactions"), (PEER, "standing"), (FOREIGN, "bundles")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_requests_of_a_kind_are_answered_once_in_a_while(peer: bytes, kind: str) -> None:
    replica, proposed = member_at_height_1()
    requests: dict[str, PeerMessage] = {
        "chain": ChainRequest(1),
        "body": BodyRequest(3, proposed),
        "transactions": TransactionsRequest(proposed, (0,)),
        "standing": Standing(0, 1),
        "bundles": BundleRequest(THERE.number, 1),
    }
    served = [answers(replica.on_message(peer, requests[kind], at(now))) for now in (600, 601, 699, 700)]
    assert [len(effects) for effects in served] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("peer", "asked"),
    [
        (PEER, ChainRequest(2)),
        (PEER, BundleRequest(THERE.number, 1)),
        (key("stranger").public, BundleRequest(THERE.number, 1)),
        (FOREIGN, BundleRequest(THERE.number, 2)),
        (FOREIGN, BundleRequest(7, 1)),
        (PEER, BundleRequest(HOME.number, 1)),
        (FOREIGN, ChainRequest(1)),
        (PEER, BodyRequest(3, ZERO_HASH)),
        (PEER, Standing(1, 3)),
        (PEER, TransactionsRequest(ZERO_HASH, (0,))),
    ],
    ids=[
        "no block yet",
        "bundles to a member of the source",
        "bundles to a stranger",
        "no bundle yet",
        "no such shard",
        "bundles to itself",
        "blocks to another committee",
        "no such body",
        "help to who is level",
        "no such block",
    ],
)
def test_what_is_not_answered(peer: bytes, asked: PeerMessage) -> None:
    replica, _ = member_at_height_1()
    assert answers(replica.on_message(peer, asked, at(600))) == []


@pytest.mark.parametrize(("height", "told"), [(0, True), (1, False), (2, False), (3, False)])
def test_who_is_blocks_behind_is_told_at_once_how_far_this_one_is(height: int, told: bool) -> None:
    network = Network()
    shard = network.shards[0]
    for _ in range(2):
        shard.add()
    replica = replica_of(network, 3, number=0)
    catch_up(replica, shard)
    effects = replica.on_message(shard.electorate.keys[1], Standing(height, replica.consensus.view), at(600))
    own = Send(shard.electorate.keys[1], Standing(2, replica.consensus.view))
    assert [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Standing)] == [own] * told


@pytest.mark.parametrize(("view", "told"), [(1, True), (2, True), (3, False)])
def test_who_asks_for_a_block_that_is_final_long_since_is_told_at_once_how_far_this_one_is(view: int, told: bool) -> None:
    network = Network()
    shard = network.shards[0]
    for _ in range(2):
        shard.add()
    replica, peer = replica_of(network, 3, number=0), shard.electorate.keys[1]
    catch_up(replica, shard)
    assert replica.consensus.views.final == 2
    effects = [effect for now in (600, 601) for effect in replica.on_message(peer, BodyRequest(view, ZERO_HASH), at(now))]
    own = Send(peer, Standing(2, replica.consensus.view))
    assert [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Standing)] == [own] * told


def test_bundles_are_forgotten_once_f_plus_1_of_the_destination_have_taken_them() -> None:
    """One of four may lie; who asks for a bundle has taken all before it. Nobody else is heard."""
    network = Network()
    issuer = network.issuers["USD"]
    home = network.shard_of(issuer)
    there = network.shards[1 - home.number]
    replica, honest = replica_of(network, 0, number=home.number), there.electorate.keys

    def committed(*asked: tuple[bytes, int]) -> list[tuple[tuple[int, int], ...]]:
        block, finality, _ = structs.astuple(home.add())
        start = 1_000 * len(home.chain)
        for peer, sequence in asked:
            replica.on_message(peer, BundleRequest(there.number, sequence), at(start))
        leader = home.electorate.keys[block.header.proposer]
        replica.on_message(leader, signed(home, block), at(start))
        effects = replica.on_message(leader, Certified((finality.certificate,)), at(start + 1))
        return [effect.taken for effect in effects if isinstance(effect, Commit)]

    number = there.number
    stranger, member = key("stranger").public, home.electorate.keys[1]
    assert committed((honest[0], 2**53), (honest[0], 2**53), (stranger, 9), (member, 9)) == [()]
    assert committed((honest[1], 2)) == [((number, 1),)], "the second greatest claim"
    assert committed((honest[1], 2), (honest[2], 4)) == [((number, 3),)]


def leader_of_two(network: Network) -> tuple[Replica, bytes, tuple[bytes, ...]]:
    """The leader of view 1, the hash of its block and that block's transactions."""
    leader, usd = replica_of(network, 1), network.issuers["USD"]
    payments = [network.pay(usd, key("payee"), 5, salt=salt) for salt in range(2)]
    for payment in payments:
        take_in(leader, payment)
    (proposal,) = proposals(leader.on_tick(at(500)))
    return leader, proposal.vote.block, tuple(map(encode, payments))


@pytest.mark.parametrize(
    ("places", "given"),
    [((0, 1), (0, 1)), ((1,), (1,)), ((), None), ((1, 0), None), ((0, 0), None), ((0, 2), None), ((2,), None)],
    ids=str,
)
def test_transactions_are_given_by_their_places_each_once(places: tuple[int, ...], given: tuple[int, ...] | None) -> None:
    network = Network(committees=1)
    leader, proposed, encoded = leader_of_two(network)
    peer = network.shards[0].electorate.keys[0]
    effects = answers(leader.on_message(peer, TransactionsRequest(proposed, places), at(600)))
    sent = None if given is None else TransactionsReply(proposed, tuple(encoded[place] for place in given))
    assert effects == ([] if sent is None else [Send(peer, sent)])


def test_transactions_of_the_next_block_are_given_at_once() -> None:
    """A leader's blocks may follow on each other fast; of one block, and of earlier ones, they are given rarely."""
    network = Network(committees=1)
    shard, (leader, first, _) = network.shards[0], leader_of_two(network)
    ended = [shard.certificate(VoteKind.NULLIFY, view, ZERO_HASH, (0, 2, 3)) for view in (2, 3, 4)]
    leader.on_message(shard.electorate.keys[2], Certified((shard.certificate(VoteKind.NOTARIZE, 1, first), *ended)), at(510))
    take_in(leader, network.pay(network.issuers["USD"], key("payee"), 6))
    (proposal,) = proposals(leader.on_tick(at(600)))
    asked = [TransactionsRequest(block_hash, (0,)) for block_hash in (first, proposal.vote.block, first, proposal.vote.block)]
    served = [len(answers(leader.on_message(shard.electorate.keys[0], request, at(601)))) for request in asked]
    assert served == [1, 1, 0, 0]
