"""Which chains a node has a part in, and what it keeps of those that are over."""

from types import SimpleNamespace
from typing import Any, cast

from msgspec import structs

from node.chronicle import Chronicle
from node.duties import Duties
from node.effects import Abandon, In, NodeEffect, Recover
from node.events import For, Missing, Recovered
from node.ledger.state import State
from node.protocol.block import Header
from node.protocol.certificate import CertifiedHeader
from node.protocol.chain import Chain
from tests.chains import Network
from tests.successions import succession
from tests.unit.replicas import at

NETWORK = Network(committees=2, standby=1)
FIRST = NETWORK.document
TO_SECOND = succession(NETWORK, FIRST, NETWORK.nodes.values())
SECOND = TO_SECOND.next_document(FIRST, NETWORK.genesis.parameters)
NEWCOMER = next(
    node
    for node in NETWORK.nodes.values()
    if (seat := SECOND.seat_of(node.public)) is not None and (FIRST.seat_of(node.public) or (None,))[0] != seat[0]
)
SHARD = (SECOND.seat_of(NEWCOMER.public) or (0,))[0]
OWN, ORIGIN = Chain(2, SHARD), Chain(1, SHARD)
CLOSING = TO_SECOND.closings[SHARD]


def restarted() -> Duties:
    """A newcomer, once the second epoch has begun, that had its shard's origin when it ended."""
    chronicle = Chronicle(NETWORK.genesis)
    chronicle.begin(FIRST)
    chronicle.restore(TO_SECOND)
    return Duties(NETWORK.genesis, NEWCOMER, "n", 0, chronicle, {ORIGIN, OWN})


def recoveries(effects: list[NodeEffect], chain: Chain) -> list[Recover]:
    return [e.effect for e in effects if isinstance(e, In) and e.chain == chain and isinstance(e.effect, Recover)]


def answered(duties: Duties, chain: Chain, answer: Recovered | Missing) -> None:
    duties.on_answer(chain, For(chain, answer).event, at(0))


def closed(duties: Duties, header: Header) -> None:
    """The origin runs here, and has this closing block."""
    (wanted,) = recoveries(duties.tend(), ORIGIN)
    state = State.genesis(wanted.rules)
    closing = CertifiedHeader(header, CLOSING.finality)
    duties.all[ORIGIN].runs = cast(Any, SimpleNamespace(state=state, closing=closing, is_closed=True))


def test_what_its_chain_opens_from_is_kept_until_it_is_open() -> None:
    """Else a power cut between two epochs costs all newcomers what they have fetched."""
    duties = restarted()
    begun = duties.tend()
    (wanted,) = recoveries(begun, OWN)
    assert wanted.origins == ()
    assert Abandon(ORIGIN) not in begun
    answered(duties, OWN, Missing())
    closed(duties, CLOSING.header)
    (wanted,) = recoveries(duties.tend(), OWN)
    assert [origin.closing for origin in wanted.origins] == [CLOSING.header]
    answered(duties, OWN, Recovered(State.genesis(wanted.rules), None, ()))
    assert duties.all[OWN].replica is not None
    assert Abandon(ORIGIN) in duties.tend()


def test_its_chain_opens_at_once_from_origins_that_have_closed_here() -> None:
    """Whatever would have to be executed again for that would keep its whole shard waiting."""
    chronicle = Chronicle(NETWORK.genesis)
    chronicle.begin(FIRST)
    duties = Duties(NETWORK.genesis, NEWCOMER, "n", 0, chronicle, {ORIGIN})
    duties._prospect = SECOND
    closed(duties, CLOSING.header)
    chronicle.restore(TO_SECOND)
    (wanted,) = recoveries(duties.tend(), OWN)
    assert [origin.closing for origin in wanted.origins] == [CLOSING.header]


def test_a_chain_is_not_opened_from_another_block_than_the_closing_one() -> None:
    duties = restarted()
    duties.tend()
    answered(duties, OWN, Missing())
    closed(duties, structs.replace(CLOSING.header, time=1))
    (wanted,) = recoveries(duties.tend(), OWN)
    assert wanted.origins == ()


def test_guests_of_a_chain_are_those_whose_shard_comes_from_it_and_no_others() -> None:
    """Each of them may ask for blocks and rows."""
    duties = restarted()
    duties.tend()
    for chain, duty in duties.all.items():
        if chain.epoch == 1:
            children = SECOND.children_of(chain.shard)
            assert duty._guests == {key for child in children for key in SECOND.electorates[child].keys}
    assert any(chain.epoch == 1 for chain in duties.all)
