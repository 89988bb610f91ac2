"""Chains that are over: whose blocks a node gives to clients, as whom, and for how long."""

import pytest

from node.chronicle import Chronicle
from node.duties import Duties
from node.effects import Abandon, In, NodeEffect, ReplyBlocks, Retire, Unsubscribe
from node.events import Asked, For, Stored
from node.node import Node
from node.protocol.chain import Chain
from node.protocol.queries import EVERYONE, GetBlocks, GetPending, GetStatus, Query, Request
from tests.chains import Network
from tests.successions import succession
from tests.unit.replicas import at

NETWORK = Network(committees=2)
NODE = NETWORK.nodes[min(NETWORK.nodes)]
LENGTH = NETWORK.genesis.parameters.validity_window // 2 + 1
"""Of an epoch, ms: the validity window is over after two."""


def chronicle_of(epochs: int) -> Chronicle:
    chronicle = Chronicle(NETWORK.genesis)
    chronicle.begin(NETWORK.document)
    while len(chronicle.documents) < epochs:
        go_on(chronicle)
    return chronicle


def go_on(chronicle: Chronicle) -> None:
    current = chronicle.documents[-1]
    chronicle.restore(succession(NETWORK, current, NETWORK.nodes.values(), current.number * LENGTH))


def place(chronicle: Chronicle, epoch: int) -> tuple[Chain, int]:
    """The node's chain of an epoch, and its number among the members."""
    seat = chronicle.documents[epoch - 1].seat_of(NODE.public)
    assert seat is not None
    return Chain(epoch, seat[0]), seat[1]


def duties_of(chronicle: Chronicle, stored: set[Chain], keep_blocks: int = 0) -> tuple[Duties, list[NodeEffect]]:
    """After a start."""
    duties = Duties(NETWORK.genesis, NODE, "n", keep_blocks, chronicle, stored)
    return duties, duties.tend()


def ask(duties: Duties, chain: Chain, member: int, request: Request = GetBlocks(1, 10)) -> list[NodeEffect]:
    return duties.on_answer(chain, Asked(Query(bytes(16), "client", member, request)), at(1))


def test_who_had_a_seat_answers_for_blocks_as_the_member_it_was_and_brings_no_ledger_back() -> None:
    chronicle = chronicle_of(4)
    (first, member), (second, _), (third, _) = (place(chronicle, epoch) for epoch in (1, 2, 3))
    foreign = Chain(1, 1 - first.shard)
    duties, began = duties_of(chronicle, {first, second, third, foreign})
    assert [effect for effect in began if isinstance(effect, Retire | Abandon)] == [
        Abandon(foreign),
        Retire(first),
        Retire(second),
    ]
    assert first not in duties.all
    assert ask(duties, first, member) == [In(first, ReplyBlocks(Query(bytes(16), "client", member, GetBlocks(1, 10))))]
    for wrong in (EVERYONE, member + 1):
        assert ask(duties, first, wrong) == []
    for other in (GetStatus(), GetPending(1)):
        assert ask(duties, first, member, other) == []
    assert ask(duties, foreign, member) == []
    assert duties.tend() == [], "once"


def test_a_chain_is_retired_when_the_epoch_after_it_is_over() -> None:
    chronicle = chronicle_of(2)
    (first, member), _ = place(chronicle, 1), place(chronicle, 2)
    duties, began = duties_of(chronicle, {first})
    assert Retire(first) not in began
    assert ask(duties, first, member) == [], "its ledger is being brought back"
    go_on(chronicle)
    over = duties.tend()
    assert over.index(Unsubscribe(first)) < over.index(Retire(first)), "of what clients send only questions are left"
    assert ask(duties, first, member)


def test_who_need_not_keep_blocks_deletes_a_chain_after_two_epochs_and_the_validity_window() -> None:
    chronicle = chronicle_of(3)
    first, member = place(chronicle, 1)
    duties, began = duties_of(chronicle, {first}, keep_blocks=1)
    assert Retire(first) in began
    go_on(chronicle)
    over = duties.tend()
    assert over[over.index(Unsubscribe(first)) :].index(Abandon(first)) > 0
    assert ask(duties, first, member) == []
    assert Abandon(first) not in duties.tend()
    _, late = duties_of(chronicle, {first}, keep_blocks=1)
    assert (Abandon(first) in late, Retire(first) in late) == (True, False)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_node_says_as_whom_it_answers(epoch: int) -> None:
    chronicle = chronicle_of(4)
    chain, member = place(chronicle, epoch)
    stored = Stored(bytes(32), NETWORK.opening, begun=tuple(chronicle.successions), chains=frozenset({chain}))
    node = Node(NETWORK.genesis, NODE, "n", ("/ip4/192.0.2.1/tcp/8100",), stored)
    node.start()
    seat = node.seat_in(chain)
    assert seat is not None
    assert (seat.member, seat.electorate.chain, seat.key.public) == (member, chain, NODE.public)
    assert node.seat_in(Chain(chain.epoch, 1 - chain.shard)) is None
    asked = Query(bytes(16), "client", member, GetBlocks(1, 1))
    assert In(chain, ReplyBlocks(asked)) in node.handle(For(chain, Asked(asked)), at(1))
