"""What a member answers other nodes, how often, and whom."""

import pytest
from msgspec import structs

from node.effects import Commit, Effect, Send, SendBlocks, SendBundles
from node.protocol.certificate import VoteKind
from node.protocol.crypto import ZERO_HASH
from node.protocol.messages import BodyReply, BodyRequest, BundleRequest, Certified, ChainRequest, PeerMessage, Standing
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
    return [e for e in effects if isinstance(e, wanted) or (isinstance(e, Send) and isinstance(e.message, BodyReply | Certified))]


@pytest.mark.parametrize(
    ("peer", "kind"),
    [(PEER, "chain"), (PEER, "body"), (PEER, "standing"), (FOREIGN, "bundles")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_requests_of_a_kind_are_answered_once_in_a_while(peer: bytes, kind: str) -> None:
    replica, proposed = member_at_height_1()
    requests: dict[str, PeerMessage] = {
        "chain": ChainRequest(1),
        "body": BodyRequest(3, proposed),
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
    ],
)
def test_what_is_not_answered(peer: bytes, asked: PeerMessage) -> None:
    replica, _ = member_at_height_1()
    assert answers(replica.on_message(peer, asked, at(600))) == []


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
